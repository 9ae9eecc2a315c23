"""Cells that differ in the size only are a curve; everything else that differs tells curves apart, or is refused."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import FINGERPRINT, add, outcomes, raw_spec, result, spec, study_in
from report_studies import full_study
from typer.testing import CliRunner

from capacity.runs.study import Study
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity_analysis.bits.cells import measured_cells
from capacity_analysis.data.curves import curves_of, differ_in, pairs_of
from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import from_frame
from capacity_analysis.data.tuning import rate_trials, reported_rows
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.ratios import WORDS
from capacity_analysis.words import times
from capacity_cli.app import app


def at(size: int, seed: int, method: str = "grpo", **parts: Any) -> RunSpec:
    """A run of `size` groups, with fields of its parts changed."""
    raw = raw_spec(method, seed)
    raw["adapter"]["groups"] = size
    for part, fields in parts.items():
        raw[part] = {**raw[part], **fields} if isinstance(fields, dict) else fields
    return RunSpec.model_validate(raw)


def run_of(study: Study, run: RunSpec, correct: int) -> None:
    """A complete run with so many of eight answers correct."""
    right = [int(i < correct) for i in range(8)]
    size = run.adapter.groups * run.adapter.u if isinstance(run.adapter, TinyLora) else 1792
    found = result(run, right, trained_parameters=size, update_bytes=2 * size)
    study.add(run, FINGERPRINT, found, [], outcomes(right, split=run.evaluation.split), b"theta")


CHANGES = {
    "scaling=paper scaling=split": {"adapter": {"scaling": "split"}},
    "steps=2 steps=9": {"training": {"steps": 9}},
    "match=prompts match=sequences": {"training": {"match": "sequences"}},
    "adam_beta1=0.8 adam_beta1=0.9": {"training": {"adam_beta1": 0.8}},
    "epsilon=0.2 epsilon=0.3": {"grpo": {"epsilon": 0.3}},
    "allocation=even allocation=gradient": {"adapter": {"allocation": "gradient"}},
}


@pytest.mark.parametrize("told", CHANGES)
def test_runs_that_differ_in_any_field_are_not_averaged(told: str, tmp_path: Path) -> None:
    """25 % and 75 % were given as "50 %, 6 seeds"."""
    study = study_in(tmp_path)
    add(study, spec("base"), [0] * 8)
    for seed in range(3):
        for size in (1, 13):
            run_of(study, at(size, seed), 2)
            run_of(study, at(size, seed, **CHANGES[told]), 6)
    found = measured_cells(read_points(str(study.folder)))
    assert sorted(found.accuracies[found.trained].tolist()) == [0.25, 0.25, 0.75, 0.75]
    assert set(found.seeds[found.trained]) == {3}
    curves = curves_of(found.points)
    assert sorted(curve.label for curve in curves) == [f"grpo {part}" for part in told.split()]
    assert len({known[told.partition("=")[0]] for known in found.shown if known["method"] != "base"}) == 2
    labels = [curve.label for curve in designs(read_points(str(study.folder)), Selection())[0].curves]
    assert sorted(labels) == [f"grpo {part}" for part in told.split()]


def test_what_makes_an_update_larger_may_vary_along_a_curve(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for seed in range(2):
        run_of(study, at(13, seed), 2)
        run_of(study, at(28, seed, adapter={"u": 4, "rank": 8}, training={"learning_rate": 0.1}), 4)
        run_of(study, lora_xs(seed), 6)
    (curve,) = curves_of(read_points(str(study.folder)))
    assert curve.label == "grpo"
    assert len(curve.rows) == 6


def test_projections_tell_curves_apart_in_words(tmp_path: Path) -> None:
    """They were called "batches=none bits=none by=none" and "batches=8 bits=8 by=grpo"."""
    study = study_in(tmp_path)
    for bits in (None, 8, 4):
        choice = {"choice": None if bits is None else {"bits": bits, "by": "grpo", "batches": 8}}
        for seed, size in ((s, n) for s in range(2) for n in (4, 13)):
            run_of(study, at(size, seed, adapter=choice), 3)
        if bits == 8:
            labels = [curve.label for curve in curves_of(read_points(str(study.folder)))]
            assert sorted(labels) == ["grpo chosen P", "grpo random P"]
    labels = [curve.label for curve in curves_of(read_points(str(study.folder)))]
    assert sorted(labels) == ["grpo chosen P bits=4", "grpo chosen P bits=8", "grpo random P"]


def lora_xs(seed: int) -> RunSpec:
    return RunSpec.model_validate({**raw_spec("grpo", seed), "adapter": {"kind": "lora-xs", "rank": 8}})


def test_an_update_that_has_no_sharing_continues_the_curve_of_every_sharing(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for seed in range(2):
        for sharing in ("tiled", "structured"):
            for size in (4, 13):
                run_of(study, at(size, seed, adapter={"sharing": sharing}), 3)
        run_of(study, lora_xs(seed), 6)
    points = read_points(str(study.folder))
    curves = designs(points, Selection())[0].curves
    assert [curve.label for curve in curves] == ["grpo sharing=structured", "grpo sharing=tiled"]
    assert [curve.sizes.tolist() for curve in curves] == [[4, 13, 1792]] * 2


def test_a_rate_is_chosen_within_the_recipe_that_it_was_tried_for(tmp_path: Path) -> None:
    """The best rate of one scaling is not that of the other."""
    study = study_in(tmp_path)
    for scaling, best in (("paper", 0.01), ("split", 0.1)):
        adapter = {"scaling": scaling}
        for rate in (0.01, 0.1):
            rates = {"learning_rate": rate}
            tried = at(13, 1000, adapter=adapter, training=rates, evaluation={"split": "validation", "items": 8})
            run_of(study, tried, 6 if rate == best else 1)
            run_of(study, at(13, 0, adapter=adapter, training=rates), 4)
    points = read_points(str(study.folder))
    trials = rate_trials(points)
    assert {(trial.name.rpartition(" ")[2], trial.best) for trial in trials} == {
        ("scaling=paper", 0.01), ("scaling=split", 0.1)
    }  # fmt: skip
    kept = points.frame[reported_rows(points)]
    assert sorted(kept["learning_rate"]) == [0.01, 0.1]


def test_the_direction_of_every_ratio_is_sft_first() -> None:
    told = [{"method": m} for m in ("grpo", "rft", "sft")]
    assert pairs_of(told) == [(2, 0), (2, 1), (0, 1)]
    one = {"method": "sft", "storage_dtype": "bf16"}
    assert differ_in(one, {"method": "grpo"}) == ("method",)
    assert differ_in(one, {"method": "grpo", "storage_dtype": "fp32"}) == ("method", "storage_dtype")
    chosen = {"adapter.choice.bits": 8, "adapter.choice.by": "grpo"}
    assert differ_in(chosen, dict.fromkeys(chosen)) == ("adapter.choice",)
    assert differ_in(chosen, {**chosen, "adapter.choice.bits": 4}) == ("adapter.choice.bits",)


def test_runs_of_one_seed_under_several_projections_count_once(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for size in (4, 13):
        for projection, correct in ((0, 2), (1, 6)):
            run_of(study, at(size, 0, adapter={"projection_seed": projection}), correct)
        run_of(study, at(size, 1), 5)
    points = read_points(str(study.folder))
    (design,) = designs(points, Selection())
    assert design.curves[0].accuracy.tolist() == [[0.5, 0.625], [0.5, 0.625]]
    assert design.curves[0].seeds == (0, 1)
    found = measured_cells(points)
    assert found.seeds.tolist() == [2, 2]
    assert found.accuracies.tolist() == [0.5625, 0.5625]
    assert found.df == 2


# One headline ratio


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = ((1, 1), (4, 1), (13, 1), (28, 1), (28, 4), (28, 16), (28, 64), (28, 256))
    return full_study(tmp_path_factory.mktemp("headline") / "s", sizes=sizes, methods=("sft", "grpo"), items=200).folder


def test_one_headline_ratio_stands_in_threshold_bits_and_on_the_page(folder: Path, tmp_path: Path) -> None:
    threshold = json.loads(run("threshold", folder, "--null", "0", "--json"))["ratios"]
    bits = json.loads(run("bits", folder, "--replicates", "100", "--json"))["ratios"]
    assert bits == threshold
    (headline,), (other,) = ([r for r in threshold if r["answer"] is answer] for answer in (True, False))
    assert (headline["numerator"], headline["denominator"]) == ("sft", "grpo")
    run("report", folder, "--null", "0", "--out", tmp_path / "r.json", "--format", "json")
    page = json.loads((tmp_path / "r.json").read_text())
    rows = {t["name"]: t["rows"] for section in page["sections"] for t in section["tables"]}
    (shown,) = rows["ratios"]
    assert {key: shown[key] for key in ("numerator", "denominator", "estimator", "estimate", "low", "high")} == {
        key: headline[key] for key in ("numerator", "denominator", "estimator", "estimate", "low", "high")
    }
    assert [shown[f"other_{key}"] for key in ("estimator", "estimate", "low", "high")] == [
        other[key] for key in ("estimator", "estimate", "low", "high")
    ]
    (sentence,) = [line for line in page["verdicts"] if "the parameters that grpo needs" in line]
    spoken = sentence.partition(" (for ")[0]
    assert WORDS[headline["estimator"]] in spoken.partition("; by ")[0]
    assert WORDS[other["estimator"]] in spoken.partition("; by ")[2]
    assert spoken in run("threshold", folder, "--null", "0", "--details")
    assert spoken in run("bits", folder, "--replicates", "100", "--details")


def test_the_average_over_accuracies_has_its_own_name_and_the_same_direction(folder: Path) -> None:
    found = json.loads(run("bits", folder, "--replicates", "100", "--json"))["savings"]
    assert [(s["test"], s["anchor"]) for s in found] == [("sft", "grpo"), ("grpo", "sft")]
    assert found[0]["size_ratio"] == pytest.approx(1 / found[1]["size_ratio"])
    lines = run("bits", folder, "--replicates", "100", "--details").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Size at equal accuracy"))
    assert "Bjøntegaard's ratio" in lines[start + 1]
    assert lines[start + 2].split()[1:3] == ["sft", "grpo"]
    assert times(found[0]["size_ratio"]) in lines[start + 2]
    assert any("It is another quantity than the ratio of thresholds" in line for line in lines)


def test_the_figure_of_the_ratio_names_its_estimator_and_marks_the_headline(folder: Path) -> None:
    from capacity_reports.report import build_report
    from capacity_reports.views import Options

    figure = build_report([folder], options=Options(null=0, replicates=50)).figure("ratio-against-target-abacus-0-9m")
    study = study_thresholds(read_points(str(folder)), Selection(), Question(), null=0)
    (headline,) = study.headlines
    assert "by Hill curves" in figure.title
    assert figure.caption.startswith(
        f"Diamonds: the headline at {100 * study.evidence[0].target.accuracy:.1f} %, sft : grpo "
    )
    assert headline.estimate is not None


def test_where_the_monotone_estimator_answers_the_hill_ratio_stands_beside_it_under_its_name() -> None:
    rows = [{"method": "base", "trained_parameters": 0, "seed": 0, "n_items": 1000, "n_correct": 300}]
    plateau = {1: 300, 10: 600, 100: 610, 1000: 600, 10000: 900}
    steep = {1: 300, 10: 590, 100: 880, 1000: 890, 10000: 900}
    for method, curve in (("sft", plateau), ("grpo", steep)):
        for size, hits in curve.items():
            rows += [
                {"method": method, "trained_parameters": size, "seed": s, "n_items": 1000, "n_correct": hits + 3 * s}
                for s in range(3)
            ]
    study = study_thresholds(from_frame(pd.DataFrame(rows), "t"), Selection(), Question(), null=0)
    (headline,) = study.headlines
    assert headline.estimator == "monotone"
    (sentence,) = study.sentences()
    assert sentence.startswith("sft needs ")
    assert " the parameters that grpo needs, by the monotone estimator; by Hill curves " in sentence
