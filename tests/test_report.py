"""Reports hold what the analysis found, and nothing else; whatever is missing is said."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import add as fakes_add
from fakes import raw_spec
from fakes import spec as fake_spec
from matplotlib.figure import Figure as Drawing
from report_studies import MODELS, STEPS, add, empty, full_study, spec, write_collapsed

from capacity.errors import DataError, SpecError
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity_analysis.bits.cells import measured_cells
from capacity_analysis.bits.frontier import frontier
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.published import reference_points
from capacity_analysis.data.read import read_points
from capacity_analysis.data.tuning import rate_trials
from capacity_analysis.lengths.descriptions import describe
from capacity_analysis.lengths.quantities import Measured
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_analysis.statistics.hill import fit_hill
from capacity_reports.blocks import Column, Figure, Table
from capacity_reports.document import Report
from capacity_reports.report import build_report, csv_text, try_report, write_files, write_report
from capacity_reports.sections.lengths import section_of
from capacity_reports.sections.paired import differences
from capacity_reports.sources import Lookups, read_source
from capacity_reports.views import Options

QUICK = Options(null=20, replicates=100)
SMALL = ((1, 1), (13, 1), (28, 1), (28, 4), (28, 16))


@pytest.fixture(scope="module", autouse=True)
def _no_fsync():
    """Nothing here is about durability, and a thousand syncs take minutes."""
    fsync, os.fsync = os.fsync, lambda _: None
    yield
    os.fsync = fsync


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return full_study(tmp_path_factory.mktemp("report") / "full", methods=("sft", "grpo"), sizes=SMALL, items=80).folder


@pytest.fixture(scope="module")
def report(folder) -> Report:
    lookups = Lookups(lambda _: 10_000, lambda *_: 3, lambda _, item: f"What is {item}?")
    return build_report([folder], reference="tinylora", options=QUICK, lookups=lookups)


def test_accuracy_figures_hold_the_configurations_of_the_analysis(report, folder):
    found = measured_cells(read_points(str(folder)), unit="parameters")
    places = frontier(found, QUICK.replicates, np.random.default_rng(0))
    wanted = {(p.known["method"], p.known["trained_parameters"]): (p.accuracy, p.low, p.high) for p in places}
    rows = report.table("accuracy-abacus-0-9m").records()
    shown = {(r["method"], r["trained_parameters"]): (r["accuracy"], r["low"], r["high"]) for r in rows}
    assert shown == wanted
    assert len(shown) == 2 * len(SMALL)
    bits = report.table("accuracy-bits-abacus-0-9m").records()
    assert {(r["method"], r["update_bits"]) for r in bits} == {(m, 16 * n) for m, n in wanted}
    assert all(len(str(r["by_seed"]).split(", ")) == 3 for r in rows)


def test_what_is_drawn_is_what_the_table_says(report):
    from matplotlib.figure import Figure as Canvas

    figure = report.figure("accuracy-abacus-0-9m")
    axes = Canvas().add_subplot()
    figure.draw(axes)
    for method in ("sft", "grpo"):
        drawn = next(line for line in axes.lines if line.get_label() == method)
        rows = [r for r in figure.data.records() if r["method"] == method]
        assert list(drawn.get_xdata()) == [r["trained_parameters"] for r in rows]
        assert list(drawn.get_ydata()) == [r["accuracy"] for r in rows]
    levels = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    target = report.analysis["full"]["targets"][0]
    assert (levels["target"], levels["ceiling"]) == (target["accuracy"], target["ceiling"])
    assert "base, best T = 0.5" in levels


def test_thresholds_ratios_and_null_calibration_are_those_of_the_analysis(report):
    analysis = report.analysis["full"]
    for name, key in (("thresholds", "curves"), ("ratios", "ratios")):
        answers = [row for row in analysis[key] if row["answer"]]
        shown = report.table(name).records()
        assert len(shown) == len(answers)
        for row, answer in zip(shown, answers, strict=True):
            where = answer["threshold"] if key == "curves" else answer
            assert [row[k] for k in ("estimate", "low", "high", "censored")] == [
                where[k] for k in ("estimate", "low", "high", "censored")
            ]
    null = analysis["null_calibration"]["pairs"]
    assert [r["naive_above_10"] for r in report.table("null-calibration").records()] == [
        n["naive_above_10"] for n in null
    ]


def test_description_lengths_and_rates_are_those_of_the_analysis(report, folder):
    found = describe(Study(folder).runs(), train_items=lambda _: 10_000, configurations=lambda *_: 3)
    cell = next(c for c in found.cells if c.method == "sft" and c.trained_parameters == 28)
    excess = cell.values["excess_bits"]
    assert isinstance(excess, Measured)
    shown = report.table("lengths-first-pass-abacus-0-9m")
    row = next(r for r in shown.records() if (r["method"], r["trained_parameters"]) == ("sft", 28))
    assert row["seeds"] == 3  # validation runs are not among them
    assert tuple(row[f"excess_bits{end}"] for end in ("", "_low", "_high")) == (
        excess.estimate,
        excess.low,
        excess.high,
    )
    assert "excess description length: bits learnt, 95 % low" not in [column.heading for column in shown.shown]
    text = f"{excess.estimate:,.0f} ({excess.low:,.0f} to {excess.high:,.0f})"
    assert any(text in line for line in shown.texts())
    assert text in report.html()
    assert text in report.markdown()
    said = "Intervals: 95 % over fresh seeds, 3 seeds."
    assert said in [line for b in report.section("description-lengths").blocks for line in getattr(b, "lines", ())]
    assert report.figure("bits-against-size-abacus-0-9m").caption.endswith(said)
    trials = rate_trials(read_points(str(folder)))
    tried = [r for m in ("sft", "grpo") for r in report.table(f"rates-abacus-0-9m-{m}").records()]
    assert len(tried) == sum(len(t.rates) for t in trials) == 3 * 2 * len(SMALL)
    assert {(r["tuning"], r["rate"]) for r in tried if r["best"]} == {(t.name, t.best) for t in trials}


def test_cells_that_differ_in_more_than_their_size_have_lines_of_their_own(tmp_path):
    study = full_study(tmp_path / "l", methods=("sft",), sizes=SMALL[1:3], seeds=2, items=20, tuned=False)
    for groups, u in SMALL[1:3]:
        for seed in range(2):
            greedy = spec("abacus-0.9m", "sft", groups, u, seed, 20, temperature=0.0)
            add(study, greedy, 0.5, np.random.default_rng(0))
    found = describe(study.runs(), train_items=lambda _: 10_000, configurations=lambda *_: 3)
    figure = next(block for block in section_of(found).blocks if isinstance(block, Figure))
    from matplotlib.figure import Figure as Canvas

    axes = Canvas().add_subplot()
    figure.draw(axes)
    drawn = {str(line.get_label()): list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2}
    lines = [f"sft evaluation.temperature {t}: bits learnt (excess)" for t in (0, 1)]
    assert [drawn[line] for line in lines] == [[13, 28]] * 2
    assert drawn["all methods: payload"] == [13, 28]


def test_dynamics_are_means_over_seeds_and_blocks(report):
    rows = report.table("reward-abacus-0-9m").records()
    assert rows[-1]["step"] == STEPS
    assert "3 seeds each" in report.figure("reward-abacus-0-9m").caption
    assert len(rows) == STEPS // 2
    grpo = [key for key in rows[0] if str(key).startswith("grpo")]
    assert len(grpo) == 3
    assert all(not key.startswith("sft") for key in rows[0])  # sft has no rewards
    first = report.table("entropy-bits-abacus-0-9m").records()[0]
    assert first["sft-448"] == pytest.approx(0.9 - 0.3 * 0.5 / STEPS)


def test_examples_show_prompts_and_both_sides(report):
    examples = [b for b in report.section("examples").blocks if b.block == "example"]
    assert examples
    for example in examples:
        assert example.prompt.startswith("What is test-")
        assert [who.split(",")[0] for who, _, _ in example.answers] == ["untrained", "sft", "grpo"]
    assert examples[0].answers[0][2] is False


def test_every_figure_has_words_and_every_name_is_its_own(report):
    names = [f.name for f in report.figures()]
    assert len(set(names)) == len(names)
    for figure in report.figures():
        assert len(figure.alt) > 40
        assert figure.caption
        assert figure.data.rows


def test_files_for_programs_hold_raw_values(report, tmp_path):
    written = write_files(report, tmp_path / "r.html", ("json", "csv", "md"))
    assert [p.name for p in written] == ["r.json", "r-csv", "r.md"]
    loaded = json.loads(written[0].read_text())
    assert loaded["analysis"] == json.loads(json.dumps(report.analysis))
    assert {p.stem for p in written[1].glob("*.csv")} == {t.name for t in report.tables()}
    assert "## Summary" in written[2].read_text()
    table = Table("t", "T", (Column("a", "A", "percent"), Column("b", "B", "percent", "open")), ((0.25, None),))
    assert csv_text(table) == "a,b\n0.25,\n"
    assert table.texts() == [["25.0", "open"]]


def test_people_read_an_interval_behind_its_value_and_programs_a_column_for_each_end():
    ends = Column("low", "95 % low", "number"), Column("high", "95 % high", "number")
    columns = (Column("bits", "bits", "number", ends=("low", "high")), *ends)
    table = Table("t", "T", columns, ((20.0, 18.0, 22.0), (16.0, 16.0, 16.0), (3.0, None, None), (None, None, None)))
    assert [column.heading for column in table.shown] == ["bits"]
    assert table.texts() == [["20 (18 to 22)"], ["16"], ["3"], ["–"]]
    assert csv_text(table).splitlines()[:2] == ["bits,low,high", "20.0,18.0,22.0"]


def test_figures_for_a_paper(report, tmp_path):
    one = Report("t", "", (), (report.section("accuracy"),), {}, "0")
    png, svg = write_files(one, tmp_path / "r.html", ("png", "svg"))
    assert [p.name for p in png.glob("*.png")] == ["accuracy-abacus-0-9m.png"]
    assert (png / "accuracy-abacus-0-9m.png").read_bytes().startswith(b"\x89PNG")
    assert "<text" not in (svg / "accuracy-abacus-0-9m.svg").read_text()  # letters are outlines


def test_band_is_the_delta_method():
    sizes = np.array([1.0, 4, 13, 28, 112, 448, 1792])
    rng = np.random.default_rng(3)
    values = 0.4 + 0.5 / (1 + 30 / sizes) + rng.normal(0, 0.01, len(sizes))
    fit = fit_hill(sizes, values, np.full(len(sizes), 1e-4))
    draws = rng.multivariate_normal(np.zeros(4), fit.covariance, 20_000)
    step = 1e-3 * draws  # small steps: the linear part only
    lower, upper, middle, log_slope = (fit.curve.theta + step).T[:, :, None]
    moved = lower + (upper - lower) / (1 + (10**middle / sizes) ** np.exp(log_slope))
    assert fit.standard_errors(sizes) == pytest.approx(moved.std(0) / 1e-3, rel=0.03)


def test_two_studies_are_paired_by_seed_and_item(folder, tmp_path):
    other = full_study(tmp_path / "other", methods=("grpo",), sizes=SMALL[2:4], seeds=2, items=80, tuned=False, seed=5)
    pairs = differences(read_source(str(folder)), read_source(str(other.folder))).pairs
    assert [(p.first.method, p.first.trained_parameters) for p in pairs] == [("grpo", 28), ("grpo", 112)]

    def outcomes(study: Study, groups: int, u: int) -> np.ndarray:
        runs = [study.read(study.path_of(spec("abacus-0.9m", "grpo", groups, u, s, 80))) for s in range(2)]
        return np.array([[row.correct[0] for row in run.outcomes()] for run in runs], dtype=float)

    for pair, (groups, u) in zip(pairs, SMALL[2:4], strict=True):
        wanted = difference_estimate(outcomes(other, groups, u), outcomes(Study(folder), groups, u))
        assert (pair.estimate.value, pair.estimate.low, pair.estimate.high) == pytest.approx(
            (wanted.value, wanted.low, wanted.high)
        )
    page = build_report([folder, other.folder], options=Options(null=0, replicates=50))
    assert page.sections[0].name == "differences-other"
    assert len({t.name for t in page.tables()}) == len(list(page.tables()))
    assert {s.name for s in page.sections} >= {"a-summary", "b-summary", "b-failures"}


@pytest.fixture
def broken(tmp_path) -> Study:
    study = empty(tmp_path / "broken")
    study.add_failure(fake_spec("sft"), "loss is not finite: lower the rate", "Traceback")
    study.write_plan([fake_spec("sft"), fake_spec("grpo")])
    return study


def test_a_study_of_failures_gives_an_honest_page(broken):
    report = build_report([broken.folder], options=QUICK)
    assert report.verdicts == ()
    assert report.table("failures").column("message") == ["loss is not finite: lower the rate"]
    for name in ("accuracy", "thresholds", "frontier", "rates"):
        assert report.section(name).absent == "no run of this study is complete"
    for name in ("dynamics", "description-lengths", "examples", "protocol"):
        assert report.section(name).absent
    text = report.markdown()
    assert "1 failed, 1 are missing" in text
    assert "allow no verdict" in text


def test_one_seed_one_size_says_what_it_cannot_say(tmp_path):
    study = full_study(tmp_path / "one", sizes=((13, 1),), seeds=1, items=40, tuned=False)
    report = build_report([study.folder], options=QUICK)
    assert "one size only" in str(report.section("thresholds").absent)
    assert report.section("rates").absent
    text = report.markdown()
    assert "spread between seeds is unknown" in text
    assert report.figure("accuracy-abacus-0-9m").data.column("seeds") == [1, 1, 1]


@pytest.mark.parametrize(("rate", "said"), [(1e-4, True), (1e-3, False)])
def test_rates_that_nobody_tuned_are_named_from_the_runs(tmp_path, rate, said):
    study = empty(tmp_path / "untuned")
    raw = raw_spec("grpo", items=4) | {"model": "smollm2-135m"}
    raw["training"]["learning_rate"] = rate
    fakes_add(study, RunSpec.model_validate(raw), [1, 0, 1, 1])
    rates = build_report([study.folder], options=QUICK).section("rates")
    assert "not tuned in this study" in str(rates.absent)
    lines = [line for block in rates.blocks for line in getattr(block, "lines", ())]
    assert bool(lines) is said
    assert any("grpo (smollm2-135m, tinylora of 13) 0.0001 are untuned defaults" in line for line in lines) is said


def test_censored_arms_have_bounds_and_no_points(tmp_path):
    study = full_study(
        tmp_path / "c", methods=("sft", "grpo"), sizes=((1, 1), (4, 1), (13, 1), (28, 4)), items=60, tuned=False
    )
    report = build_report([study.folder], options=Options(null=0, replicates=50))
    sft = next(r for r in report.table("thresholds").records() if r["method"] == "sft")
    assert sft["censored"] == "right"
    assert sft["estimate"] is None
    assert "not reached" in str(sft["bound"])
    assert "needs ≥" in report.verdicts[0]


def test_collapsed_seeds_stand_beside_the_curve_in_table_figure_and_text(tmp_path):
    path = write_collapsed(tmp_path / "points.csv")
    report = build_report([path], options=Options(null=0, replicates=50))
    told = {r["method"]: r["collapsed"] for r in report.table("thresholds").records()}
    assert told == {"sft": "0 of 5 (0.0–52.2 %)", "grpo": "1 of 5 (0.5–71.6 %)"}
    figure = report.figure("accuracy-m")
    assert "Seeds that collapsed: 1 of 5 (0.5–71.6 %) of grpo." in figure.caption
    axes = Drawing().add_subplot()
    figure.draw(axes)
    assert "grpo without 1 of 5 seeds" in axes.get_legend_handles_labels()[1]


def test_rates_that_nothing_chose_between_do_not_hide_collapsed_seeds_elsewhere(tmp_path):
    path = write_collapsed(tmp_path / "points.csv", untuned=(0.01, 0.02))
    report = build_report([path], options=Options(null=0, replicates=50))
    (figure,) = [block for block in report.section("accuracy").blocks if isinstance(block, Figure)]
    assert "Seeds that collapsed: 1 of 5 (0.5–71.6 %) of grpo." in figure.caption
    assert "90.5, 90.1, 50.0, 90.0, 90.3" in figure.data.column("by_seed")


def test_kinds_of_demonstrations_are_not_pooled(tmp_path):
    study = full_study(
        tmp_path / "d", methods=("sft", "grpo"), sizes=SMALL[1:3], seeds=2, items=40, tuned=False, shifts=(0.0, 4.0)
    )
    report = build_report([study.folder], options=Options(null=0, replicates=50))
    figures = [b for b in report.section("accuracy").blocks if isinstance(b, Figure)]
    of_all, *of_each = figures
    assert of_all.name.startswith("accuracy-by-demonstrations")
    assert len(of_each) == 2
    assert all(f.data.column("method").count("sft") == 2 for f in of_each)


def test_styles_stand_in_one_figure_and_what_they_share_is_said_once(tmp_path):
    study = full_study(tmp_path / "s", sizes=SMALL, items=60, tuned=False, shifts=(0.0, 2.4, 4.8))
    report = build_report([study.folder], options=QUICK)
    figure = report.figure("accuracy-by-demonstrations-abacus-0-9m-sft-bf16")
    found = measured_cells(read_points(str(study.folder)), unit="parameters")
    wanted = {
        (known["demonstrations"], known["trained_parameters"]): accuracy
        for known, accuracy in zip(found.shown, found.accuracies, strict=True)
        if known["method"] == "sft"
    }
    shown = {(r["demonstrations"], r["trained_parameters"]): r["accuracy"] for r in figure.data.records()}
    assert shown == wanted
    assert [row["verdict"] for row in report.table("verdicts").records()] == list(report.verdicts)
    said = [line for line in report.verdicts if " needs " in line or "nothing can be said" in line]
    of_grpo_and_rft = [line for line in said if "sft needs" not in line]
    assert len(said) - len(of_grpo_and_rft) == 6  # 2 pairs of methods in 3 styles
    # The pair without sft has one estimate. What the seeds share is pooled over all curves of a style, sft among them.
    assert len({re.sub(r" \([^()]*\)", "", line.partition(": ")[2]) for line in of_grpo_and_rft}) == 1
    assert len(of_grpo_and_rft) == len({line.partition(": ")[2] for line in of_grpo_and_rft})
    text = [line for b in report.section("summary").blocks for line in getattr(b, "lines", ())]
    assert len(text) == len(set(text))


def test_several_models_have_thresholds_against_their_size(tmp_path):
    study = full_study(tmp_path / "m", models=tuple(MODELS), methods=("grpo",), seeds=2, items=60, tuned=False)
    report = build_report([study.folder], reference="tinylora", options=Options(null=0, replicates=50))
    rows = report.table("scaling").records()
    measured = {r["model"]: r["estimate"] for r in rows if r["kind"] == "measured"}
    curves = {c["model"]: c["threshold"]["estimate"] for c in report.analysis["m"]["curves"] if c["answer"]}
    assert measured == curves
    crossings = {(r["model"], r["task"]): r["gain_95"] for r in report.table("published-crossings").records()}
    assert crossings["Qwen2.5-7B-Instruct", "gsm8k"] == "≤ 13 (91.5)"
    published = [r for r in rows if r["kind"] == "published"]
    assert published
    assert {r["method"] for r in published} == {"grpo"}
    assert all(r["low"] is None for r in published)


def test_methods_of_one_size_stand_side_by_side(tmp_path):
    from matplotlib.figure import Figure as Canvas

    study = full_study(tmp_path / "one", sizes=((13, 1),), seeds=2, items=40, tuned=False)
    report = build_report([study.folder], options=Options(null=0, replicates=50))
    axes = Canvas().add_subplot()
    report.figure("accuracy-abacus-0-9m").draw(axes)
    methods = [text.get_text() for text in axes.get_xticklabels()]
    assert methods == ["sft", "rft", "grpo"]
    assert axes.get_xlabel() == "trained parameters: 13"
    drawn = {line.get_label(): line.get_xdata()[0] for line in axes.lines if line.get_label() in methods}
    assert drawn == {"sft": 0, "rft": 1, "grpo": 2}
    assert "no frontier to draw" in report.markdown()


def test_published_figures_alone(tmp_path):
    path = tmp_path / "gsm8k.csv"
    frame = reference_points("tinylora-table2").frame
    frame[frame["task"] == "gsm8k"].to_csv(path, index=False)
    report = build_report([path], options=QUICK)
    assert report.section("accuracy").absent is None
    assert report.section("dynamics").absent == "a points table holds no training steps"
    rows = next(t for t in report.tables() if t.name.startswith("thresholds")).records()
    assert all(r["low"] is None and r["high"] is None for r in rows)


def test_errors_are_one_line(tmp_path, folder):
    with pytest.raises(SpecError, match="unknown format 'pfd': did you mean pdf"):
        write_report([folder], tmp_path / "r.pfd")
    with pytest.raises(SpecError, match="unknown reference"):
        build_report([folder], reference="tinylra")
    with pytest.raises(SpecError, match="nothing to report on"):
        build_report([])
    with pytest.raises(DataError, match="no such"):
        build_report([tmp_path / "absent"])


def test_a_report_that_fails_never_fails_the_study(tmp_path, monkeypatch):
    found = try_report(tmp_path / "absent")
    assert isinstance(found, Absent)
    assert "no such" in found.reason
    monkeypatch.setattr("capacity_reports.report.build_report", lambda *_, **__: 1 / 0)
    found = try_report(tmp_path)
    assert isinstance(found, Absent)
    assert "ZeroDivisionError" in found.reason
    assert "\n" not in found.reason


def test_pdf_without_a_browser_says_what_to_do(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROME_PATH", raising=False)
    with pytest.raises(Exception, match="no Chromium on this machine: install Debian's package chromium"):
        write_report([folder], tmp_path / "r.pdf")


@pytest.mark.skipif("CAPACITY_SLOW" not in os.environ, reason="a thousand runs: CAPACITY_SLOW=1")
def test_a_thousand_runs_in_time_and_space(tmp_path):
    study = full_study(
        tmp_path / "big", models=tuple(MODELS), sizes=[*SMALL, (4, 1), (7, 1), (14, 1)], seeds=11, items=1000
    )
    assert len(study.runs()) > 1000
    began = time.process_time()
    path = write_report([study.folder])
    assert time.process_time() - began < 20
    assert path.stat().st_size < 5e6


def test_add_makes_runs_that_verify(tmp_path):
    study = empty(tmp_path / "v")
    add(study, spec("abacus-0.9m", "grpo", 13, 1, 0, 40), 0.7, np.random.default_rng(0))
    run = study.runs()[0]
    assert run.result.accuracy == pytest.approx(0.7, abs=0.15)
