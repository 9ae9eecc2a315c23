"""The numbers of a comparison are those of its runs, paired as the runs allow."""

import json
from dataclasses import replace

import fakes
import numpy as np
import pytest
from compared import GRPO_HIGHER, ITEMS, NOT_TOLD_APART, SFT_HIGHER, compare, compared_json, make, right, said, spec

from capacity.errors import DataError
from capacity.spec.methods import PAIRS
from capacity.spec.result import Outcome
from capacity_analysis.compare.comparison import Difference
from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_analysis.data.cell_results import answers_of, cell_results, difference
from capacity_analysis.data.table import study_points
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import accuracy_estimate, difference_estimate
from capacity_analysis.statistics.seed_tests import Permutation


@pytest.fixture
def three_seeds(tmp_path):
    return compare(tmp_path / "study", sft=(22, 24, 23), grpo=(36, 37, 35))


@pytest.fixture
def three_seeds_json(tmp_path):
    return compared_json(tmp_path / "json", sft=(22, 24, 23), grpo=(36, 37, 35))


def test_json_has_the_promised_fields(three_seeds_json):
    result = three_seeds_json
    assert {"base", "results", "verdict"} <= set(result)
    assert {"accuracy", "low", "high", "n_items"} <= set(result["base"])
    assert [row["method"] for row in result["results"]] == ["sft", "grpo"]
    promised = {
        "method", "adapter", "trained_parameters", "update_bytes", "learning_rate",
        "accuracy", "low", "high", "seeds", "n_items", "wall_seconds",
    }  # fmt: skip
    for row in result["results"]:
        assert promised <= set(row)
        assert row["interval"] == "95 %, fresh seeds and items, 3 seeds"


def test_seeds_that_collapsed_are_counted_beside_the_mean(tmp_path):
    found = compare(tmp_path / "study", sft=(22, 24, 23), grpo=(36, 5, 37, 35, 36))
    sft, grpo = found.cells
    assert (grpo.collapsed.count, grpo.collapsed.seeds) == (1, 5)
    assert (grpo.collapsed.low, grpo.collapsed.high) == pytest.approx((0.00505, 0.71642), abs=5e-6)
    assert sft.collapsed.count == 0
    assert "1 of 5 grpo seeds collapsed" in said(found)
    assert "sft seeds collapsed" not in said(found)


def test_json_is_plain_and_finite(three_seeds, three_seeds_json):
    text = json.dumps(three_seeds_json, allow_nan=False)
    assert json.loads(text)["verdict"] == said(three_seeds)


def test_numbers_of_a_cell_are_those_of_its_runs(three_seeds_json):
    sft, grpo = three_seeds_json["results"]
    assert grpo["accuracy"] == pytest.approx((36 + 37 + 35) / (3 * ITEMS), abs=1e-12)
    assert grpo["accuracy_by_seed"] == (36 / ITEMS, 37 / ITEMS, 35 / ITEMS)
    assert sft["accuracy"] == pytest.approx((22 + 24 + 23) / (3 * ITEMS), abs=1e-12)
    for row in (sft, grpo):
        assert (row["adapter"], row["trained_parameters"], row["update_bytes"]) == ("tinylora", 13, 26)
        assert (row["seeds"], row["n_items"], row["learning_rate"]) == (3, ITEMS, 0.01)
        assert (row["storage_dtype"], row["header_bytes"]) == ("bf16", 500)
        assert (row["prompts"], row["sequences"]) == (6, 24)
        assert row["wall_seconds"] == 3.0
        assert row["trained_tokens"] == 241.0


def test_intervals_are_those_of_the_outcomes_on_disk(three_seeds, three_seeds_json):
    matrix = np.array([right(count, seed) for seed, count in enumerate((36, 37, 35))], dtype=float)
    other = np.array([right(count, seed) for seed, count in enumerate((22, 24, 23))], dtype=float)
    base = np.array([right(20, 99)], dtype=float)
    sft, grpo = three_seeds.cells
    assert grpo.cell.accuracy == accuracy_estimate(matrix)
    assert grpo.gain == difference_estimate(matrix, base)
    assert sft.gain == difference_estimate(other, base)
    (difference,) = three_seeds.differences
    exchanged = Permutation(p=0.25, smallest=0.25, arrangements=8)  # grpo is ahead at each of three seeds
    assert difference == Difference("grpo", "sft", difference_estimate(matrix, other), exchanged)
    assert difference.detectable == smallest_detectable(difference.estimate)
    found = difference.estimate
    assert [(d["first"], d["second"], d["estimate"], d["low"], d["high"]) for d in three_seeds_json["differences"]] == [
        ("grpo", "sft", found.value, found.low, found.high)
    ]


def test_base_is_that_of_the_protocol_and_all_temperatures_are_shown(three_seeds, three_seeds_json):
    assert three_seeds.base.value == 20 / ITEMS
    shown = three_seeds_json["base_by_temperature"]
    assert {t: row["accuracy"] for t, row in shown.items()} == {"0": 15 / ITEMS, "0.5": 18 / ITEMS, "1": 0.5}
    assert shown["1"] == three_seeds_json["base"]


def test_order_of_runs_on_disk_does_not_matter(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    runs = study.runs()
    costs = costs_of(runs)
    one, other = (
        comparison_json(compare_runs(study.folder, *some), costs) for some in ((runs, specs), (runs[::-1], specs[::-1]))
    )
    assert one == other


def test_runs_that_were_not_planned_are_left_out(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    costs = costs_of(study.runs())
    expected = comparison_json(compare_runs(study.folder, study.runs(), specs), costs)
    fakes.add(study, spec("grpo", seed=7), [0] * ITEMS)
    assert comparison_json(compare_runs(study.folder, study.runs(), specs), costs) == expected


def test_arms_are_paired_by_the_seeds_that_both_have(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) != ("sft", 1)]
    comparison = compare_runs(study.folder, kept, specs)
    ours = np.array([right(36, 0), right(35, 2)], dtype=float)
    theirs = np.array([right(22, 0), right(23, 2)], dtype=float)
    assert [d.estimate for d in comparison.differences] == [difference_estimate(ours, theirs)]
    assert [c.cell.accuracy.seeds for c in comparison.cells] == [2, 3]
    assert "fresh seeds and items, 2 to 3 seeds; " in said(comparison)


def test_arms_without_a_common_seed_are_not_compared(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24), grpo=(36, 37))
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) not in {("sft", 1), ("grpo", 0)}]
    comparison = compare_runs(study.folder, kept, specs)
    assert comparison.differences == ()
    assert not any(claim in said(comparison) for claim in (GRPO_HIGHER, SFT_HIGHER, NOT_TOLD_APART))


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_a_base_of_other_seeds_is_a_fixed_reference_however_many_there_are(tmp_path, seeds):
    study = fakes.study_in(tmp_path)
    for seed in (5, 6, 7):
        fakes.add(study, spec("sft", seed), right(24 + seed, seed))
    for seed in seeds:
        fakes.add(study, spec("base", seed), right(18 + seed, seed))
    base, trained = sorted(cell_results(study_points(study.folder, study.runs())), key=lambda c: c.trained_parameters)
    ours = np.array([right(24 + seed, seed) for seed in (5, 6, 7)], dtype=float)
    theirs = np.mean([right(18 + seed, seed) for seed in seeds], axis=0, keepdims=True)
    assert difference(trained, base) == difference_estimate(ours, theirs)


def test_runs_on_two_bases_are_told_from_a_missing_base(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24))
    bases = {"sft": "b" * 64, "base": "a" * 64}
    runs = [
        replace(run, result=run.result.model_copy(update={"base_fingerprint": bases[run.spec.method]}))
        for run in study.runs()
    ]
    with pytest.raises(DataError, match="its runs were made on different bases and cannot be compared: choose another"):
        compare_runs(study.folder, runs, specs)


def test_single_arm_is_compared_with_the_base_only(tmp_path):
    comparison = compare(tmp_path, grpo=(36, 37, 35))
    assert [c.name for c in comparison.cells] == ["grpo"]
    assert comparison.differences == ()
    assert "sft" not in said(comparison)
    assert "grpo gains over the base" in said(comparison)


def test_missing_base_is_refused(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24), grpo=(36, 37))
    kept = [r for r in study.runs() if r.spec != spec("base")]
    with pytest.raises(DataError, match="untrained base is missing: run the comparison again"):
        compare_runs(study.folder, kept, specs)


@pytest.mark.parametrize("odd", ["sft", "grpo", "base"])
def test_runs_that_answered_other_items_are_refused(tmp_path, odd):
    study = fakes.study_in(tmp_path)
    specs = [spec(method) for method in ("sft", "grpo", "base")]
    for s in specs:
        fakes.add(study, s, right(20), first_item=7 if s.method == odd else 0)
    with pytest.raises(DataError, match="answered other items than"):
        compare_runs(study.folder, study.runs(), specs)


def test_runs_that_answered_fewer_items_are_refused(tmp_path):
    study = fakes.study_in(tmp_path)
    runs = [fakes.add(study, spec("sft", 0), right(20)), fakes.add(study, spec("sft", 1), right(20)[:-1])]
    points = study_points(study.folder, runs)
    with pytest.raises(DataError, match=f"run {runs[1].spec.short_id} answered other items than run"):
        answers_of(points, [[0], [1]])


def test_several_samples_of_an_item_count_by_their_share(tmp_path):
    study = fakes.study_in(tmp_path)
    s = spec("sft")
    outcomes = [Outcome(item=f"test-{i}", correct=(1, i % 2, 0, 0)) for i in range(6)]
    s = s.model_copy(update={"evaluation": s.evaluation.model_copy(update={"samples_per_item": 4, "items": 6})})
    folder = study.add(s, fakes.FINGERPRINT, fakes.result(s, [1] * 9 + [0] * 15, n_items=6), [], outcomes, None)
    shares, items = answers_of(study_points(study.folder, [study.read(folder)]), [[0]])
    assert shares.tolist() == [[0.25, 0.5, 0.25, 0.5, 0.25, 0.5]]
    assert len(items) == 6


def test_every_pair_that_ran_is_compared_in_one_order(tmp_path):
    arms = {
        "sft": (22, 24), "rft": (30, 31), "grpo": (36, 37), "random-reward": (20, 19), "sft+grpo": (35, 34),
        "rft-online": (33, 32),
    }  # fmt: skip
    comparison = compare(tmp_path, **arms)
    assert tuple((d.first, d.second) for d in comparison.differences) == PAIRS
    for d in comparison.differences:
        expected = (sum(arms[d.first]) - sum(arms[d.second])) / (2 * ITEMS)
        assert d.estimate.value == pytest.approx(expected, abs=1e-12)
        assert f"{d.first} and {d.second}" in said(comparison) or f"{d.first} scores" in said(comparison)


def test_arms_stand_in_the_order_of_the_methods_whatever_was_planned_first(tmp_path):
    comparison = compare(tmp_path, grpo=(36,), rft=(30,), sft=(22,))
    assert [c.name for c in comparison.cells] == ["sft", "rft", "grpo"]


def test_task_is_named_with_the_demonstrations_that_some_arm_saw(tmp_path):
    assert compare(tmp_path / "both", sft=(22,), grpo=(36,)).task == spec("sft").task.label
    assert compare(tmp_path / "one", grpo=(36,)).task == "abacus"


def test_costs_of_a_cell_are_means_over_its_runs(tmp_path):
    study, _ = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    trained = [run for run in study.runs() if run.spec.training is not None]
    sft, grpo = costs_of(trained).values()
    assert (sft.sampled_tokens, grpo.sampled_tokens) == (0.0, 251.0)
    assert (grpo.prompts, grpo.sequences, grpo.trained_tokens, grpo.flops) == (6, 24, 241.0, 1e9)
