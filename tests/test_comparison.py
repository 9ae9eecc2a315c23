import json
import math
import random
from dataclasses import replace

import fakes
import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import DataError
from capacity.spec.methods import PAIRS
from capacity.spec.result import Outcome
from capacity.spec.run import RunSpec
from capacity_analysis.compare.comparison import ComparedCell, Comparison, Difference, comparisons
from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_analysis.compare.verdicts import verdict, verdicts
from capacity_analysis.data.cell_results import CellResult, answers_of
from capacity_analysis.data.table import study_points
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, difference_estimate
from capacity_analysis.statistics.seed_tests import Permutation

ITEMS = 40
TEMPERATURES = (0.0, 0.5, 1.0)
NOT_TOLD_APART = "grpo and sft cannot be told apart"
GRPO_HIGHER = "grpo scores higher than sft"
SFT_HIGHER = "sft scores higher than grpo"


def spec(method, seed=0, temperature=1.0, split="test"):
    return fakes.spec(method, seed, ITEMS, temperature, split)


def right(count, seed=0):
    """`count` right answers of ITEMS; which ones depends on the seed."""
    order = list(range(ITEMS))
    random.Random(seed).shuffle(order)
    chosen = set(order[:count])
    return [int(i in chosen) for i in range(ITEMS)]


def make(folder, base=(15, 18, 20), validation=(15, 18, 20), **arms):
    """The study of a comparison: right answers of the base by temperature, and of each seed of each arm."""
    study = fakes.study_in(folder)
    specs = []
    for method, counts in arms.items():
        for seed, count in enumerate(counts):
            specs.append(spec(method, seed))
            fakes.add(study, specs[-1], right(count, seed))
    for split, counts in (("test", base), ("validation", validation)):
        for temperature, count in zip(TEMPERATURES, counts, strict=False):
            specs.append(spec("base", temperature=temperature, split=split))
            fakes.add(study, specs[-1], right(count, 99))
    return study, specs


def compare(folder, **arms):
    study, specs = make(folder, **arms)
    return compare_runs(study.folder, study.runs(), specs)


def compared_json(folder, **arms):
    study, specs = make(folder, **arms)
    runs = study.runs()
    return comparison_json(compare_runs(study.folder, runs, specs), costs_of(runs))


def said(comparison):
    return verdict(comparison).sentence


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


@pytest.mark.parametrize(
    ("sft", "grpo", "claim", "collapsed"),
    [
        ((12, 13, 12), (36, 37, 35), GRPO_HIGHER, ""),
        ((36, 37, 35), (12, 13, 12), SFT_HIGHER, ""),
        ((24, 25, 23), (25, 23, 24), NOT_TOLD_APART, ""),
        (
            (10, 38, 20), (38, 12, 39), NOT_TOLD_APART,
            "; 1 of 3 sft seeds collapsed; 1 of 3 grpo seeds collapsed",
        ),
    ],
)  # fmt: skip
def test_verdict_takes_the_side_that_the_runs_show_and_only_then(tmp_path, sft, grpo, claim, collapsed):
    comparison = compare(tmp_path, sft=sft, grpo=grpo)
    claims = [c for c in (GRPO_HIGHER, SFT_HIGHER, NOT_TOLD_APART) if c in said(comparison)]
    assert claims == [claim]
    assert said(comparison).endswith(f"(95 %, fresh seeds and items, 3 seeds; 40 items{collapsed}).")


def test_one_seed_allows_no_claim_about_methods_and_claims_about_runs_only(tmp_path):
    comparison = compare(tmp_path, sft=(12,), grpo=(36,))
    assert said(comparison) == (
        "One seed: no claim about methods. With 13 trained parameters: grpo − sft +60.0 points (+44.1 to +75.9); "
        "sft does not clearly differ from the base in its one run, −20.0 points (−40.7 to +0.7); grpo gains over the "
        "base in its one run, +40.0 points (+22.6 to +57.4) (95 %, fresh items, one seed; 40 items)."
    )


def test_one_seed_in_common_allows_no_claim_about_that_pair(tmp_path):
    comparison = compare(tmp_path, sft=(12,), grpo=(36, 37, 35))
    assert said(comparison).startswith(
        "With 13 trained parameters: one seed in common allows no claim about grpo and sft, grpo − sft +"
    )
    assert "grpo gains over the base, +" in said(comparison)
    assert said(comparison).endswith("(95 %, fresh items, one seed; 95 %, fresh seeds and items, 3 seeds; 40 items).")


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


def test_single_arm_is_compared_with_the_base_only(tmp_path):
    comparison = compare(tmp_path, grpo=(36, 37, 35))
    assert [c.name for c in comparison.cells] == ["grpo"]
    assert comparison.differences == ()
    assert "sft" not in said(comparison)
    assert "grpo gains over the base" in said(comparison)


def test_no_trained_run_gives_no_claim(tmp_path):
    study, specs = make(tmp_path)
    comparison = compare_runs(study.folder, study.runs(), [*specs, spec("sft")])
    assert comparison.cells == ()
    assert said(comparison) == (
        "Nothing can be said: no trained run is complete (no intervals; 1 sft run gave no result and is left out)."
    )


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


def estimate(low, value, high, seeds=3):
    return Estimate(value, low, high, "items" if seeds == 1 else "seeds and items", seeds, 1024)


def compared(method, gain, over=None, trained_parameters=13):
    seeds = gain.seeds
    return ComparedCell(
        method,
        CellResult(
            identity=method,
            recipe={},
            model="abacus-0.9m",
            task="abacus",
            demonstrations="none",
            method=method,
            adapter="tinylora",
            storage_dtype="bf16",
            protocol=None,
            split="test",
            trained_parameters=trained_parameters,
            update_bytes=2 * trained_parameters,
            learning_rate=0.01,
            seeds=tuple(range(seeds)),
            accuracies=(0.5,) * seeds,
            items=(),
            shares=None,
            accuracy=estimate(0.4, 0.5, 0.6, seeds),
        ),
        gain,
        over,
        CollapsedShare.of(np.zeros(seeds, bool)),
    )


def made_up(cells, differences=(), best_temperature=None):
    base = estimate(0.3, 0.4, 0.5, 1)
    return Comparison({"model": "abacus-0.9m"}, tuple(cells), base, {}, best_temperature, tuple(differences), {})


estimates = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(lambda ends: estimate(*sorted(ends)))


@unhurried
@given(estimates, estimates, estimates)
def test_verdict_takes_a_side_exactly_when_the_interval_excludes_zero(difference, sft_gain, grpo_gain):
    both = [compared("sft", sft_gain), compared("grpo", grpo_gain)]
    text = said(made_up(both, [Difference("grpo", "sft", difference)]))
    assert (GRPO_HIGHER in text) == (difference.low > 0)
    assert (SFT_HIGHER in text) == (difference.high < 0)
    assert (NOT_TOLD_APART in text) == (difference.low <= 0 <= difference.high)
    for method, gain in (("sft", sft_gain), ("grpo", grpo_gain)):
        assert (f"{method} gains over the base" in text) == (gain.low > 0)
        assert (f"{method} falls below the base" in text) == (gain.high < 0)
        undecided = f"{method} does not clearly differ from the base" in text
        assert undecided == (gain.low <= 0 <= gain.high)
    assert "\n" not in text


@pytest.mark.parametrize("end", [0.0, -0.0, math.ulp(0.0)])
def test_interval_that_touches_zero_takes_no_side(end):
    gain = estimate(-0.1, 0.0, 0.1)
    both = [compared("sft", gain), compared("grpo", gain)]
    for ends in ((-end, 0.1, 0.2), (-0.2, -0.1, end)):
        assert NOT_TOLD_APART in said(made_up(both, [Difference("grpo", "sft", estimate(*ends))]))


@unhurried
@given(estimates, estimates)
def test_one_seed_takes_no_side_whatever_its_interval(difference, gain):
    one = replace(difference, seeds=1, over="items")
    cells = [compared(method, replace(gain, seeds=1, over="items")) for method in ("sft", "grpo")]
    text = said(made_up(cells, [Difference("grpo", "sft", one)]))
    assert text.startswith("One seed: no claim about methods. ")
    assert "higher" not in text
    assert "told apart" not in text
    assert text.count("in its one run") == 2


def test_verdict_quotes_size_difference_and_interval_in_points():
    gain = estimate(0.01, 0.02, 0.03)
    both = [compared("sft", gain), compared("grpo", gain)]
    text = said(made_up(both, [Difference("grpo", "sft", estimate(0.034, 0.123, 0.2))]))
    assert text.startswith("With 13 trained parameters: grpo scores higher than sft, +12.3 points (+3.4 to +20.0); ")
    text = said(made_up(both, [Difference("grpo", "sft", estimate(-0.2, -0.123, -0.034))]))
    assert "sft scores higher than grpo, grpo − sft −12.3 points (−20.0 to −3.4)" in text
    assert text.endswith("(95 %, fresh seeds and items, 3 seeds; 1,024 items).")


def test_one_trained_parameter_is_singular():
    gain = estimate(0.01, 0.02, 0.03)
    assert said(made_up([compared("grpo", gain, trained_parameters=1)])).startswith("With 1 trained parameter: ")


def test_a_verdict_is_a_sentence_a_claim_with_its_scope_in_the_first():
    both = [compared(method, estimate(0.01, 0.02, 0.03)) for method in ("sft", "grpo")]
    found = verdict(made_up(both, [Difference("grpo", "sft", estimate(0.01, 0.02, 0.03))]))
    assert found.sentences == (
        "With 13 trained parameters (95 %, fresh seeds and items, 3 seeds; 1,024 items): grpo scores higher than sft, "
        "+2.0 points (+1.0 to +3.0).",
        "sft gains over the base, +2.0 points (+1.0 to +3.0).",
        "grpo gains over the base, +2.0 points (+1.0 to +3.0).",
    )


def test_a_difference_without_an_interval_is_no_claim():
    both = [compared(method, estimate(0.01, 0.02, 0.03)) for method in ("sft", "grpo")]
    text = said(made_up(both, [Difference("grpo", "sft", Estimate.none(0.3, 3))]))
    assert "sft gains over the base" in text
    assert "grpo and sft" not in text
    assert "grpo − sft" not in text


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


def test_a_gain_that_sharpening_alone_would_give_is_said(tmp_path):
    """30 of 40 beats the base at the protocol's temperature, but not at its best one."""
    comparison = compare(tmp_path, base=(31, 18, 10), validation=(31, 18, 10), grpo=(31, 30, 32))
    assert "grpo gains over the base" in said(comparison)
    assert "but not clearly over the base at its best temperature 0, " in said(comparison)


def test_best_temperature_is_mentioned_only_where_a_gain_is_in_doubt():
    clear, doubtful, loss = estimate(0.1, 0.2, 0.3), estimate(-0.1, 0.1, 0.3), estimate(-0.3, -0.2, -0.1)
    doubt = "but not clearly over the base at its best temperature 0.25, "
    for gain, over, expected in [
        (clear, doubtful, True), (clear, loss, True), (clear, estimate(0.0, 0.1, 0.2), True), (clear, clear, False),
        (clear, None, False), (doubtful, loss, False), (loss, loss, False),
    ]:  # fmt: skip
        assert (doubt in said(made_up([compared("grpo", gain, over)], best_temperature=0.25))) is expected


def test_incomplete_arms_are_counted_and_said(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), rft=(30, 31, 29), grpo=(36, 37, 35))
    lost = {("sft", 1), ("rft", 0), ("rft", 1)}
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) not in lost]
    comparison = compare_runs(study.folder, kept, specs)
    assert comparison.incomplete == {"sft": 1, "rft": 2}
    assert said(comparison).endswith(
        "; 1 sft run gave no result and is left out; 2 rft runs gave no result and are left out)."
    )


def test_costs_of_a_cell_are_means_over_its_runs(tmp_path):
    study, _ = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    trained = [run for run in study.runs() if run.spec.training is not None]
    sft, grpo = costs_of(trained).values()
    assert (sft.sampled_tokens, grpo.sampled_tokens) == (0.0, 251.0)
    assert (grpo.prompts, grpo.sequences, grpo.trained_tokens, grpo.flops) == (6, 24, 241.0, 1e9)


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
