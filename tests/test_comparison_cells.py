"""Which runs are one comparison: sizes, models, temperatures, recipes and projections."""

import fakes
import numpy as np
from compared import GRPO_HIGHER, ITEMS, compare, compared_json, make, right, said, spec

from capacity.spec.run import RunSpec
from capacity_analysis.compare.comparison import comparisons
from capacity_analysis.compare.result import compare_runs
from capacity_analysis.compare.verdicts import verdicts
from capacity_analysis.data.table import study_points
from capacity_analysis.statistics.estimate import accuracy_estimate, difference_estimate


def test_best_temperature_is_chosen_on_validation_and_reported_on_test(tmp_path):
    """T = 0 is best on test, but T = 0.5 on validation: what was chosen must not have seen the test."""
    answers = {"base": (34, 25, 20), "validation": (10, 30, 20), "grpo": (36, 37, 35)}
    comparison, shown = compare(tmp_path / "one", **answers), compared_json(tmp_path / "two", **answers)
    assert comparison.best_temperature == shown["best_temperature"] == 0.5
    assert comparison.base_by_temperature[0.5].value == 25 / ITEMS
    grpo = np.array([right(count, seed) for seed, count in enumerate((36, 37, 35))], dtype=float)
    (cell,) = comparison.cells
    assert cell.gain == difference_estimate(grpo, np.array([right(20, 99)], dtype=float))
    over = difference_estimate(grpo, np.array([right(25, 99)], dtype=float))
    assert cell.gain_over_best_temperature == over
    (row,) = shown["results"]
    assert row["gain_over_best_temperature"] == over.to_json()


def test_validation_runs_are_shown_nowhere_as_results(tmp_path):
    shown = compared_json(tmp_path / "one", validation=(40, 0, 1), grpo=(36,))
    other = compared_json(tmp_path / "two", validation=(39, 3, 2), grpo=(36,))
    assert shown == other


def test_of_equally_good_temperatures_the_highest_is_taken(tmp_path):
    assert compare(tmp_path, validation=(20, 20, 19), grpo=(36,)).best_temperature == 0.5


def test_without_validation_runs_there_is_no_best_temperature(tmp_path):
    shown = compared_json(tmp_path, validation=(), grpo=(36, 37, 35))
    assert shown["best_temperature"] is None
    assert [row["gain_over_best_temperature"] for row in shown["results"]] == [None]
    assert "temperature" not in shown["verdict"]


def sized(raw_spec, groups, **task):
    raw_spec["adapter"]["groups"] = groups
    raw_spec["task"] |= task
    return RunSpec.model_validate(raw_spec)


def result_of(run_spec, answers):
    size = run_spec.adapter.groups if run_spec.training else 0
    return fakes.result(run_spec, answers, trained_parameters=size, update_bytes=2 * size)


def add(study, run_spec, answers):
    outcomes = fakes.outcomes(answers)
    study.add(run_spec, fakes.FINGERPRINT, result_of(run_spec, answers), [], outcomes, b"theta")


def test_every_size_and_model_is_a_comparison_of_its_own(tmp_path):
    study = fakes.study_in(tmp_path)
    for model in ("abacus-0.9m", "abacus-3m"):
        add(study, RunSpec.model_validate({**fakes.raw_spec("base", items=ITEMS), "model": model}), right(20, 99))
        for groups, learnt in ((13, 24), (28, 34)):
            for method, count in (("sft", 24), ("grpo", learnt)):
                for seed in range(2):
                    raw = {**fakes.raw_spec(method, seed, ITEMS), "model": model}
                    add(study, sized(raw, groups), right(count, seed))
    found = comparisons(study_points(study.folder, study.runs()))
    assert [(c.recipe["model"], c.cells[0].cell.trained_parameters) for c in found] == [
        ("abacus-0.9m", 13), ("abacus-0.9m", 28), ("abacus-3m", 13), ("abacus-3m", 28),
    ]  # fmt: skip
    one = compare_runs(study.folder, study.runs(), [r.spec for r in study.runs() if _at(r.spec, "abacus-3m", 28)])
    assert [d.estimate for d in found[3].differences] == [d.estimate for d in one.differences]
    first, second = verdicts(found)
    assert first.head == "abacus-0.9m: By trained parameters"
    assert second.claims[0].startswith("grpo and sft cannot be told apart at 13, grpo scores higher than sft at 28 (+")
    assert second.claims[1] == "sft does not clearly differ from the base at 13 and 28"


def _at(run_spec, model, groups):
    return run_spec.model == model and (run_spec.training is None or run_spec.adapter.groups == groups)


def test_styles_of_demonstrations_are_cells_of_one_comparison_and_named_apart(tmp_path):
    study = fakes.study_in(tmp_path)
    add(study, spec("base"), right(20, 99))
    for seed in range(2):
        add(study, spec("grpo", seed), right(36, seed))
        for shift, count in ((0.0, 30), (4.0, 22)):
            options = {"style_bits": 4.0, "style_shift": shift}
            add(study, sized(fakes.raw_spec("sft", seed, ITEMS), 13, options=options), right(count, seed))
    (found,) = comparisons(study_points(study.folder, study.runs()))
    assert [c.name for c in found.cells] == ["sft style_shift=0", "sft style_shift=4", "grpo"]
    assert [(d.first, d.second) for d in found.differences] == [
        ("grpo", "sft style_shift=0"), ("grpo", "sft style_shift=4"),
    ]  # fmt: skip


def test_a_seed_with_several_projections_counts_once(tmp_path):
    study = fakes.study_in(tmp_path)
    add(study, spec("base"), right(20, 99))
    answers = {(0, 0): 30, (0, 1): 34, (1, 1): 36}
    for (seed, projection), count in answers.items():
        raw = fakes.raw_spec("grpo", seed, ITEMS)
        raw["adapter"]["projection_seed"] = projection
        add(study, RunSpec.model_validate(raw), right(count, seed))
        add(study, spec("sft", seed), right(22, seed)) if seed == projection else None
    (found,) = comparisons(study_points(study.folder, study.runs()))
    grpo = np.array([(np.array(right(30, 0)) + right(34, 0)) / 2, right(36, 1)], dtype=float)
    sft = np.array([right(22, seed) for seed in range(2)], dtype=float)
    assert found.cells[1].cell.accuracy == accuracy_estimate(grpo)
    assert found.cells[1].cell.seeds == (0, 1)
    assert found.differences[0].estimate == difference_estimate(grpo, sft)


def test_recipes_that_differ_in_anything_else_are_never_compared(tmp_path):
    study = fakes.study_in(tmp_path)
    add(study, spec("base"), right(20, 99))
    longer = fakes.raw_spec("grpo", 0, ITEMS)
    longer["training"]["steps"] = 3
    add(study, spec("sft"), right(22))
    add(study, RunSpec.model_validate(longer), right(36))
    found = comparisons(study_points(study.folder, study.runs()))
    assert [[c.name for c in comparison.cells] for comparison in found] == [["sft"], ["grpo"]]
    assert not any(comparison.differences for comparison in found)


def test_without_the_base_methods_are_compared_and_gains_are_not_known(tmp_path):
    study, _ = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    kept = [run for run in study.runs() if run.spec.method != "base"]
    (found,) = comparisons(study_points(study.folder, kept))
    assert found.base is None
    assert GRPO_HIGHER in said(found)
    assert "the untrained base has no run, so gains are not known" in said(found)
