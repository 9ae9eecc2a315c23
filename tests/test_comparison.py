import json
import math
import random

import fakes
import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import DataError
from capacity.spec.result import Outcome
from capacity_analysis.compare.comparison import PAIRS, Arm, Difference, compare_runs, outcome_matrix, verdict
from capacity_analysis.statistics.intervals import Interval, accuracy_interval, difference_interval

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
    return compare_runs(study.runs(), specs)


@pytest.fixture
def three_seeds(tmp_path):
    return compare(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))


def test_json_has_the_promised_fields(three_seeds):
    result = three_seeds.to_json()
    assert {"base", "results", "verdict"} <= set(result)
    assert {"accuracy", "low", "high", "n_items"} <= set(result["base"])
    assert [row["method"] for row in result["results"]] == ["sft", "grpo"]
    promised = {
        "method", "adapter", "trained_parameters", "update_bytes", "learning_rate",
        "accuracy", "low", "high", "seeds", "n_items", "wall_seconds",
    }  # fmt: skip
    for row in result["results"]:
        assert promised <= set(row)


def test_json_is_plain_and_finite(three_seeds):
    text = json.dumps(three_seeds.to_json(), allow_nan=False)
    assert json.loads(text)["verdict"] == three_seeds.verdict


def test_numbers_of_an_arm_are_those_of_its_runs(three_seeds):
    sft, grpo = three_seeds.to_json()["results"]
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


def test_intervals_are_those_of_the_outcomes_on_disk(three_seeds):
    matrix = np.array([right(count, seed) for seed, count in enumerate((36, 37, 35))], dtype=float)
    other = np.array([right(count, seed) for seed, count in enumerate((22, 24, 23))], dtype=float)
    base = np.array([right(20, 99)], dtype=float)
    sft, grpo = three_seeds.arms
    assert grpo.accuracy == accuracy_interval(matrix)
    assert grpo.gain == difference_interval(matrix, base)
    assert sft.gain == difference_interval(other, base)
    (difference,) = three_seeds.differences
    assert difference == Difference("grpo", "sft", difference_interval(matrix, other))
    shown = three_seeds.to_json()["differences"]
    assert [(d["first"], d["second"], d["estimate"], d["low"], d["high"]) for d in shown] == [
        ("grpo", "sft", difference.interval.estimate, difference.interval.low, difference.interval.high)
    ]


def test_base_is_that_of_the_protocol_and_all_temperatures_are_shown(three_seeds):
    assert three_seeds.base.estimate == 20 / ITEMS
    shown = three_seeds.to_json()["base_by_temperature"]
    assert {t: row["accuracy"] for t, row in shown.items()} == {"0": 15 / ITEMS, "0.5": 18 / ITEMS, "1": 0.5}
    assert shown["1"] == three_seeds.to_json()["base"]


def test_order_of_runs_on_disk_does_not_matter(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    runs = study.runs()
    assert compare_runs(runs[::-1], specs[::-1]) == compare_runs(runs, specs)


def test_runs_that_were_not_planned_are_left_out(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    expected = compare_runs(study.runs(), specs)
    fakes.add(study, spec("grpo", seed=7), [0] * ITEMS)
    assert compare_runs(study.runs(), specs) == expected


@pytest.mark.parametrize(
    ("sft", "grpo", "claim"),
    [
        ((12, 13, 12), (36, 37, 35), GRPO_HIGHER),
        ((36, 37, 35), (12, 13, 12), SFT_HIGHER),
        ((24, 25, 23), (25, 23, 24), NOT_TOLD_APART),
        ((10, 38, 20), (38, 12, 39), NOT_TOLD_APART),
    ],
)
def test_verdict_takes_the_side_that_the_runs_show_and_only_then(tmp_path, sft, grpo, claim):
    comparison = compare(tmp_path, sft=sft, grpo=grpo)
    claims = [c for c in (GRPO_HIGHER, SFT_HIGHER, NOT_TOLD_APART) if c in comparison.verdict]
    assert claims == [claim]
    assert "(3 seeds, 40 items)" in comparison.verdict


def test_one_seed_is_said(tmp_path):
    comparison = compare(tmp_path, sft=(12,), grpo=(36,))
    assert "one seed, so the spread between seeds is unknown" in comparison.verdict
    assert [arm.accuracy.seeds for arm in comparison.arms] == [1, 1]


def test_arms_are_paired_by_the_seeds_that_both_have(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), grpo=(36, 37, 35))
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) != ("sft", 1)]
    comparison = compare_runs(kept, specs)
    ours = np.array([right(36, 0), right(35, 2)], dtype=float)
    theirs = np.array([right(22, 0), right(23, 2)], dtype=float)
    assert [d.interval for d in comparison.differences] == [difference_interval(ours, theirs)]
    assert [arm.accuracy.seeds for arm in comparison.arms] == [2, 3]
    assert "(2 seeds, " in comparison.verdict


def test_arms_without_a_common_seed_are_not_compared(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24), grpo=(36, 37))
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) not in {("sft", 1), ("grpo", 0)}]
    comparison = compare_runs(kept, specs)
    assert comparison.differences == ()
    assert comparison.to_json()["differences"] == []
    assert not any(claim in comparison.verdict for claim in (GRPO_HIGHER, SFT_HIGHER, NOT_TOLD_APART))


def test_single_arm_is_compared_with_the_base_only(tmp_path):
    comparison = compare(tmp_path, grpo=(36, 37, 35))
    assert [arm.method for arm in comparison.arms] == ["grpo"]
    assert comparison.differences == ()
    assert "sft" not in comparison.verdict
    assert "grpo gains over the base" in comparison.verdict


def test_no_trained_run_gives_no_claim(tmp_path):
    comparison = compare(tmp_path)
    assert comparison.arms == ()
    assert comparison.verdict == "No trained run is complete, so nothing can be said."


def test_missing_base_is_refused(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24), grpo=(36, 37))
    kept = [r for r in study.runs() if r.spec != spec("base")]
    with pytest.raises(DataError, match="untrained base is missing: run the comparison again"):
        compare_runs(kept, specs)


@pytest.mark.parametrize("odd", ["sft", "grpo", "base"])
def test_runs_that_answered_other_items_are_refused(tmp_path, odd):
    study = fakes.study_in(tmp_path)
    specs = [spec(method) for method in ("sft", "grpo", "base")]
    for s in specs:
        fakes.add(study, s, right(20), first_item=7 if s.method == odd else 0)
    with pytest.raises(DataError, match="answered other items than"):
        compare_runs(study.runs(), specs)


def test_runs_that_answered_fewer_items_are_refused(tmp_path):
    study = fakes.study_in(tmp_path)
    runs = [fakes.add(study, spec("sft", 0), right(20)), fakes.add(study, spec("sft", 1), right(20)[:-1])]
    with pytest.raises(DataError, match="answered other items than"):
        outcome_matrix(runs)


def test_several_samples_of_an_item_count_by_their_share(tmp_path):
    study = fakes.study_in(tmp_path)
    s = spec("sft")
    outcomes = [Outcome(item=f"test-{i}", correct=(1, i % 2, 0, 0)) for i in range(6)]
    s = s.model_copy(update={"evaluation": s.evaluation.model_copy(update={"samples_per_item": 4})})
    folder = study.add(s, fakes.FINGERPRINT, fakes.result(s, [1]), [], outcomes, None)
    assert outcome_matrix([study.read(folder)]).tolist() == [[0.25, 0.5, 0.25, 0.5, 0.25, 0.5]]


def interval(low, estimate, high, seeds=3):
    return Interval(estimate, low, high, "made up", seeds, 1024)


def arm(method, gain, over=None, seeds=3, trained_parameters=13):
    return Arm(
        method=method,
        adapter="tinylora",
        trained_parameters=trained_parameters,
        update_bytes=2 * trained_parameters,
        header_bytes=500,
        storage_dtype="bf16",
        learning_rate=0.01,
        accuracy=interval(0.4, 0.5, 0.6, seeds),
        gain=gain,
        gain_over_best_temperature=over,
        accuracy_by_seed=(0.5,) * seeds,
        prompts=1,
        sequences=1,
        sampled_tokens=1.0,
        trained_tokens=1.0,
        flops=1.0,
        wall_seconds=1.0,
    )


intervals = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(lambda ends: interval(*sorted(ends)))


@unhurried
@given(intervals, intervals, intervals)
def test_verdict_takes_a_side_exactly_when_the_interval_excludes_zero(difference, sft_gain, grpo_gain):
    text = verdict([arm("sft", sft_gain), arm("grpo", grpo_gain)], [Difference("grpo", "sft", difference)])
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
    gain = interval(-0.1, 0.0, 0.1)
    both = [arm("sft", gain), arm("grpo", gain)]
    assert NOT_TOLD_APART in verdict(both, [Difference("grpo", "sft", interval(-end, 0.1, 0.2))])
    assert NOT_TOLD_APART in verdict(both, [Difference("grpo", "sft", interval(-0.2, -0.1, end))])


def test_verdict_quotes_size_difference_and_interval_in_points():
    gain = interval(0.01, 0.02, 0.03)
    higher, lower = interval(0.034, 0.123, 0.2), interval(-0.2, -0.123, -0.034)
    text = verdict([arm("sft", gain), arm("grpo", gain)], [Difference("grpo", "sft", higher)])
    assert text.startswith("With 13 trained parameters: grpo scores higher than sft, +12.3 points")
    assert "(95 % interval +3.4 to +20.0)" in text
    text = verdict([arm("sft", gain), arm("grpo", gain)], [Difference("grpo", "sft", lower)])
    assert "sft scores higher than grpo, grpo − sft -12.3 points (95 % interval -20.0 to -3.4)" in text


def test_one_trained_parameter_is_singular():
    gain = interval(0.01, 0.02, 0.03)
    assert verdict([arm("grpo", gain, trained_parameters=1)]).startswith("With 1 trained parameter: ")


def test_every_pair_that_ran_is_compared_in_one_order(tmp_path):
    arms = {
        "sft": (22, 24), "rft": (30, 31), "grpo": (36, 37), "random-reward": (20, 19), "sft+grpo": (35, 34),
        "rft-online": (33, 32),
    }  # fmt: skip
    comparison = compare(tmp_path, **arms)
    assert tuple((d.first, d.second) for d in comparison.differences) == PAIRS
    for d in comparison.differences:
        expected = (sum(arms[d.first]) - sum(arms[d.second])) / (2 * ITEMS)
        assert d.interval.estimate == pytest.approx(expected, abs=1e-12)
        assert f"{d.first} and {d.second}" in comparison.verdict or f"{d.first} scores" in comparison.verdict


def test_arms_stand_in_the_order_of_the_methods_whatever_was_planned_first(tmp_path):
    comparison = compare(tmp_path, grpo=(36,), rft=(30,), sft=(22,))
    assert [arm.method for arm in comparison.arms] == ["sft", "rft", "grpo"]


def test_task_is_named_with_the_demonstrations_that_some_arm_saw(tmp_path):
    assert compare(tmp_path / "both", sft=(22,), grpo=(36,)).task == spec("sft").task.label
    assert compare(tmp_path / "one", grpo=(36,)).task == "abacus"


def test_best_temperature_is_chosen_on_validation_and_reported_on_test(tmp_path):
    """T = 0 is best on test, but T = 0.5 on validation: what was chosen must not have seen the test."""
    comparison = compare(tmp_path, base=(34, 25, 20), validation=(10, 30, 20), grpo=(36, 37, 35))
    assert comparison.best_temperature == comparison.to_json()["best_temperature"] == 0.5
    assert comparison.base_by_temperature[0.5].estimate == 25 / ITEMS
    grpo = np.array([right(count, seed) for seed, count in enumerate((36, 37, 35))], dtype=float)
    (arm,) = comparison.arms
    assert arm.gain == difference_interval(grpo, np.array([right(20, 99)], dtype=float))
    over = difference_interval(grpo, np.array([right(25, 99)], dtype=float))
    assert arm.gain_over_best_temperature == over
    (row,) = comparison.to_json()["results"]
    assert row["gain_over_best_temperature"] == {"estimate": over.estimate, "low": over.low, "high": over.high}


def test_validation_runs_are_shown_nowhere_as_results(tmp_path):
    shown = compare(tmp_path / "one", validation=(40, 0, 1), grpo=(36,)).to_json()
    other = compare(tmp_path / "two", validation=(39, 3, 2), grpo=(36,)).to_json()
    assert shown == other


def test_of_equally_good_temperatures_the_highest_is_taken(tmp_path):
    assert compare(tmp_path, validation=(20, 20, 19), grpo=(36,)).best_temperature == 0.5


def test_without_validation_runs_there_is_no_best_temperature(tmp_path):
    comparison = compare(tmp_path, validation=(), grpo=(36, 37, 35))
    assert comparison.best_temperature is None
    assert [arm.gain_over_best_temperature for arm in comparison.arms] == [None]
    assert comparison.to_json()["results"][0]["gain_over_best_temperature"] is None
    assert "temperature" not in comparison.verdict


def test_a_gain_that_sharpening_alone_would_give_is_said(tmp_path):
    """30 of 40 beats the base at the protocol's temperature, but not at its best one."""
    comparison = compare(tmp_path, base=(31, 18, 10), validation=(31, 18, 10), grpo=(31, 30, 32))
    assert "grpo gains over the base" in comparison.verdict
    assert "but not clearly over the base at its best temperature 0, " in comparison.verdict


def test_best_temperature_is_mentioned_only_where_a_gain_is_in_doubt():
    clear, doubtful, loss = interval(0.1, 0.2, 0.3), interval(-0.1, 0.1, 0.3), interval(-0.3, -0.2, -0.1)
    said = "but not clearly over the base at its best temperature 0.25, "
    for gain, over, expected in [
        (clear, doubtful, True), (clear, loss, True), (clear, interval(0.0, 0.1, 0.2), True), (clear, clear, False),
        (clear, None, False), (doubtful, loss, False), (loss, loss, False),
    ]:  # fmt: skip
        assert (said in verdict([arm("grpo", gain, over)], best_temperature=0.25)) is expected


def test_incomplete_arms_are_counted_and_said(tmp_path):
    study, specs = make(tmp_path, sft=(22, 24, 23), rft=(30, 31, 29), grpo=(36, 37, 35))
    lost = {("sft", 1), ("rft", 0), ("rft", 1)}
    kept = [r for r in study.runs() if (r.spec.method, r.spec.seed) not in lost]
    comparison = compare_runs(kept, specs)
    assert comparison.incomplete == {"sft": 1, "rft": 2}
    assert comparison.verdict.endswith(
        "; 1 sft run gave no result and is left out; 2 rft runs gave no result and are left out)."
    )


def test_costs_of_an_arm_are_means_over_its_runs(three_seeds):
    sft, grpo = three_seeds.arms
    assert (sft.sampled_tokens, grpo.sampled_tokens) == (0.0, 251.0)
    for name in ("prompts", "sequences", "sampled_tokens", "trained_tokens", "flops"):
        assert three_seeds.to_json()["results"][1][name] == getattr(grpo, name)
