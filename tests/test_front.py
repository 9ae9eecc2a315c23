"""The first screen says what the data decide, and in one line what they do not."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_studies import add, empty, full_study, spec

from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_analysis.words import times
from capacity_reports.decided import decides
from capacity_reports.document import Report
from capacity_reports.report import build_report
from capacity_reports.undecided import seeds_to_show
from capacity_reports.views import Options

QUICK = Options(null=0, replicates=50)
SIZES = ((1, 1), (13, 1), (28, 1), (28, 4), (28, 16))


@pytest.fixture(scope="module", autouse=True)
def _no_fsync():
    fsync, os.fsync = os.fsync, lambda _: None
    yield
    os.fsync = fsync


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    folder = tmp_path_factory.mktemp("front") / "3f9ac04be1d27a66"
    study = full_study(folder, methods=("sft", "grpo"), sizes=SIZES, items=400, tuned=False)
    return build_report([study.folder], options=QUICK)


def test_the_answer_is_the_decided_ratio_with_its_interval(report):
    front = report.front
    assert front is not None
    assert front.question == "How small an update do sft and grpo need on abacus-0.9m?"  # no name of a folder
    (ratio,) = [r for r in report.analysis[report.title]["ratios"] if r["answer"]]
    assert ratio["low"] > 1
    assert front.answer.startswith("On abacus-0.9m, sft needs ")
    assert front.answer.endswith(" as many trained parameters as grpo to reach 80 % of the possible gain.")
    assert ratio["high"] is None
    assert f"needs at least {times(ratio['low']).rstrip('×')} times as many" in front.answer
    assert front.undecided is None


def test_three_numbers_have_their_meaning(report):
    front = report.front
    assert len(front.numbers) == 3
    rows = report.table("accuracy-abacus-0-9m").records()
    best = max(rows, key=lambda row: row["accuracy"])
    assert front.numbers[0].value == f"{100 * best['accuracy']:.1f} %"
    assert best["method"] in front.numbers[0].meaning
    smallest = min(r["estimate"] for r in report.table("thresholds").records() if r["estimate"] is not None)
    assert front.numbers[1].value == f"{round(smallest):,} parameters"
    assert "fresh seeds" in front.intervals


def test_the_first_screen_stands_before_everything_else(report):
    page = report.html()
    places = [page.index(text) for text in (report.front.question, 'class="static"', 'class="numbers"', "<nav")]
    assert places == sorted(places)
    assert page.index("<nav") < page.index('id="summary"')


def test_sections_without_content_are_one_line(report):
    page = report.html()
    absent = [s for s in report.sections if s.absent is not None and not s.blocks]
    assert absent
    folded = page[page.index('id="not-in-this-report"') :]
    for section in absent:
        assert f'<section id="{section.name}"' not in page
        assert f'<li id="{section.name}">' in folded
        assert f'href="#{section.name}"' not in page
    assert folded.count("<summary>") == 1


def test_equal_methods_are_not_decided_and_what_would_decide_is_said(tmp_path):
    study, rng = empty(tmp_path / "equal"), np.random.default_rng(1)
    add(study, spec("abacus-0.9m", "base", 1, 1, 0, 100), 0.36, rng)
    for method in ("sft", "grpo"):
        for seed, share in enumerate((0.5, 0.6, 0.7)):
            add(study, spec("abacus-0.9m", method, 13, 1, seed, 100), share, rng)
    front = build_report([study.folder], options=QUICK).front
    assert front.question == "Which of sft and grpo gains most with 13 trained parameters on abacus-0.9m?"
    assert front.answer == "No difference between grpo and sft is decided."
    assert front.undecided.startswith("Not decided: 1 of 1 differences between grpo and sft. More seeds")
    assert "(now 3" in front.undecided


def test_one_seed_decides_nothing(tmp_path):
    study = full_study(tmp_path / "one", methods=("sft", "grpo"), sizes=SIZES, seeds=1, items=400, tuned=False)
    front = build_report([study.folder], options=QUICK).front
    assert "sft needs" not in front.answer
    assert "A second seed per cell" in front.undecided


def test_a_ratio_is_decided_if_its_interval_excludes_1(report):
    ratio = next(r for _, study in [_first_study(report)] for r in study.headlines)
    for low, high, found in ((1.5, 6.3, True), (5.0, None, True), (None, 0.5, True), (None, 1.0, False)):
        assert decides(replace(ratio, low=low, high=high)) is found
    for low, high in ((0.00051, 17_000.0), (1.0, None), (None, None)):
        assert not decides(replace(ratio, low=low, high=high))


def _first_study(report: Report):
    from capacity_reports.sources import read_source
    from capacity_reports.views import analyse

    path = Path(next(iter(report.analysis.values()))["source"])
    return analyse(read_source(str(path)), QUICK).thresholds[0]


def test_the_seeds_that_show_a_difference_are_the_fewest_that_do():
    rng = np.random.default_rng(0)
    easy = rng.uniform(size=2000)
    first, second = ((easy < share[:, None]).astype(float) for share in rng.normal(0.6, 0.02, (2, 3)))
    found = difference_estimate(first, second)
    seeds = seeds_to_show(found, 0.05)
    assert seeds is not None

    def detectable(count: int) -> float:
        expected = found.crossed.with_seeds(count, found.seeds)
        return smallest_detectable(replace(found, seeds=count, crossed=expected)) or 1.0

    assert detectable(seeds) <= 0.05 < detectable(seeds - 1)
    assert seeds_to_show(replace(found, seeds=1), 0.05) is None


def test_two_studies_open_with_what_differs(report, tmp_path):
    a = full_study(tmp_path / "a", methods=("grpo",), sizes=SIZES[:2], seeds=2, items=40, tuned=False)
    b = full_study(tmp_path / "b", methods=("grpo",), sizes=SIZES[:2], seeds=2, items=40, tuned=False, seed=4)
    front = build_report([a.folder, b.folder], options=QUICK).front
    assert front.question == "How does b differ from a?"
    assert front.answer.startswith("Of 2 common cells b is higher than a in ")
