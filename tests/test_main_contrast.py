"""The first screen speaks of one pair, named before any result, and judges its statements together."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from report_studies import add, empty, full_study, spec

from capacity_analysis.compare.comparison import Difference
from capacity_analysis.statistics.estimate import Estimate, difference_estimate
from capacity_analysis.statistics.multiplicity import holm, holm_claims
from capacity_analysis.thresholds.confidence import at_confidence
from capacity_analysis.thresholds.ratios import Ratio
from capacity_reports.document import Report
from capacity_reports.front import front
from capacity_reports.main_contrast import main_contrast
from capacity_reports.report import build_report
from capacity_reports.sources import read_source
from capacity_reports.statements import ratio_sentence
from capacity_reports.views import Options, analyse

QUICK = Options(null=0, replicates=50)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@given(st.lists(st.floats(0, 1), max_size=8))
@unhurried
def test_claims_that_stand_together_are_those_of_holms_p_values(ps):
    claims = [lambda error, p=p: p <= error for p in ps]
    assert holm_claims(claims, 0.05) == [p <= 0.05 for p in holm(ps)]


def apart_by(points: float, seed: int) -> Estimate:
    """A difference of so many points, found with five seeds of 400 items that differ only in what is asked."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.3, (5, 400))
    return difference_estimate(noise - noise.mean() + points / 100, np.zeros((1, 400)))


def asked(*pairs: tuple[str, str, Estimate]):
    """An analysis of one comparison for each difference."""
    comparisons = [SimpleNamespace(differences=[Difference(*pair)], cells=()) for pair in pairs]
    return SimpleNamespace(thresholds=[], comparisons=comparisons)


def test_what_one_interval_shows_is_not_decided_if_many_were_asked():
    seen = apart_by(2.5, 0)
    assert seen.sign == 1
    assert not seen.excludes_zero(1 - 0.05 / 6)
    nothing = [apart_by(0.0, seed) for seed in range(1, 6)]
    alone = main_contrast(asked(("grpo", "sft", seen)))
    assert [d.difference.estimate for d in alone.decided_differences] == [seen]
    together = main_contrast(asked(*(("grpo", "sft", estimate) for estimate in (seen, *nothing))))
    assert together.decided_differences == ()
    assert len(together.differences) == len(together.open_differences) == 6
    assert "The chance of any false claim among the 6 differences is at most 5 % (Holm)." in together.judged


def test_the_pair_is_that_of_the_design_not_the_one_that_differs():
    found = main_contrast(asked(("grpo", "rft", apart_by(9.0, 0)), ("grpo", "sft", apart_by(0.0, 1))))
    assert found.methods == ("grpo", "sft")
    assert found.decided_differences == ()
    without = main_contrast(asked(("grpo", "random-reward", apart_by(9.0, 0)), ("grpo", "rft", apart_by(0.0, 1))))
    assert without.methods == ("grpo", "rft")
    assert main_contrast(asked()).methods is None


def test_other_pairs_are_exploratory_on_the_page(tmp_path: Path):
    study, rng = empty(tmp_path / "study"), np.random.default_rng(1)
    add(study, spec("abacus-0.9m", "base", 1, 1, 0, 400), 0.36, rng)
    for method, shares in (("sft", (0.5, 0.6, 0.7)), ("grpo", (0.5, 0.6, 0.7)), ("rft", (0.93, 0.94, 0.95))):
        for seed, share in enumerate(shares):
            add(study, spec("abacus-0.9m", method, 13, 1, seed, 400), share, rng)
    report = build_report([study.folder], options=QUICK)
    assert "rft scores" not in report.front.answer
    assert report.front.answer.endswith("No difference between grpo and sft is decided.")
    assert report.front.undecided.startswith("Not decided: 1 of 1 differences between grpo and sft. ")
    assert report.front.judged.startswith("The main contrast, grpo and sft, was fixed before the results. ")
    assert report.front.judged in report.html()
    assert "Holm" not in report.front.judged
    said = said_in_the_summary(report)
    place = said.index("Exploratory, each interval stands alone: of twenty pairs that do not differ, one seems to.")
    assert said[place - 1] == "No difference between grpo and sft is decided."
    assert all("rft scores" in line for line in said[place + 1 : place + 3])


def test_a_ratio_that_only_stands_alone_is_shown_as_such(tmp_path: Path):
    folder = full_study(tmp_path / "s", methods=("sft", "grpo"), items=400, tuned=False).folder
    analysis = analyse(read_source(str(folder)), QUICK)
    main = main_contrast(analysis)
    assert front(analysis, [], main).answer == ratio_sentence(main.decided_ratios[0])
    lost = replace(main, decided_ratios=(), decided_differences=(), ratios=main.ratios * 3)
    doubt = "By itself this interval excludes 1; judged together with the other 2 ratios it does not."
    assert front(analysis, [], lost).answer == f"{ratio_sentence(main.ratios[0])} {doubt}"


def said_in_the_summary(report: Report) -> list[str]:
    (summary,) = [section for section in report.json()["sections"] if section["name"] == "summary"]
    return summary["text"]


def test_a_ratio_at_another_confidence_is_wider_and_at_the_usual_one_the_same(tmp_path: Path):
    folder = full_study(tmp_path / "s", methods=("sft", "grpo"), items=400, tuned=False).folder
    ((_, study),) = analyse(read_source(str(folder)), QUICK).thresholds
    wider = 0
    for ratio in study.ratios:
        assert ends(at_confidence(study, ratio, 0.95)) == pytest.approx(ends(ratio), rel=1e-6)
        (low, high), (wide_low, wide_high) = ends(ratio), ends(at_confidence(study, ratio, 0.995))
        assert wide_low <= low
        assert wide_high >= high
        wider += (wide_low, wide_high) != (low, high)
    assert wider


def ends(ratio: Ratio) -> tuple[float, float]:
    return ratio.low or 0.0, np.inf if ratio.high is None else ratio.high
