"""A verdict takes a side only where an interval does, and says what holds it back."""

import math
from dataclasses import replace

import numpy as np
import pytest
from compared import GRPO_HIGHER, NOT_TOLD_APART, SFT_HIGHER, compare, make, said, spec
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity_analysis.compare.comparison import ComparedCell, Comparison, Difference
from capacity_analysis.compare.result import compare_runs
from capacity_analysis.compare.verdicts import verdict
from capacity_analysis.data.cell_results import CellResult
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.statistics.estimate import Estimate


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


def test_no_trained_run_gives_no_claim(tmp_path):
    study, specs = make(tmp_path)
    comparison = compare_runs(study.folder, study.runs(), [*specs, spec("sft")])
    assert comparison.cells == ()
    assert said(comparison) == (
        "Nothing can be said: no trained run is complete (no intervals; 1 sft run gave no result and is left out)."
    )


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
