"""Ratios of thresholds: closed forms, properties, censoring, and what is said about them."""

import math

import numpy as np
import pytest
from test_thresholds import frame, hill, study

from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import from_frame
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.ratios import parallel_test
from capacity_analysis.words import times


def test_the_ratio_at_a_common_target_has_each_arms_own_ceiling():
    """Base .6, ceilings .9 and .97, midpoints 300 and 30, target .85: 24, where equal ceilings would give 10."""
    table = frame(
        {"sft": lambda x: hill(x, 0.6, 0.9, 300.0), "grpo": lambda x: hill(x, 0.6, 0.97, 30.0)},
        base=0.6, items=100_000, noise=30,
    )  # fmt: skip
    found = next(r for r in study(table, target=0.85).ratios if r.estimator == "hill")
    assert found.estimate == pytest.approx(24.0, rel=0.02)
    assert found.low < 24 < found.high
    assert (found.numerator, found.denominator) == ("sft", "grpo")


def test_swapping_the_arms_inverts_the_ratio():
    arms = {"sft": lambda x: hill(x, midpoint=400.0), "grpo": hill}
    one = study(frame(arms, noise=5), target=0.8)
    two = study(frame({"sft": arms["grpo"], "grpo": arms["sft"]}, noise=5), target=0.8)
    swapped = frame(arms, noise=5).replace({"method": {"sft": "grpo", "grpo": "sft"}})
    two = study(swapped, target=0.8)
    for estimator in ("hill", "monotone"):
        a, b = (next(r for r in s.ratios if r.estimator == estimator) for s in (one, two))
        assert a.estimate * b.estimate == pytest.approx(1.0, rel=1e-3)
        assert a.low * b.high == pytest.approx(1.0, rel=0.02)


def test_a_censored_numerator_leaves_only_a_bound():
    result = study(frame({"sft": lambda x: hill(x, upper=0.6), "grpo": hill}, noise=4), target=0.8)
    for found in result.ratios:
        assert (found.estimate, found.high, found.censored) == (None, None, "right")
        assert found.low is not None
        assert found.low > 10
    assert "≥" in result.sentences()[0]


def test_two_censored_arms_leave_nothing():
    flat = frame({m: lambda x: hill(x, upper=0.6) for m in ("sft", "grpo")}, noise=4)
    result = study(flat, target=0.8)
    assert [(r.estimate, r.low, r.high, r.censored) for r in result.ratios] == [(None, None, None, "both")] * 2
    assert "nothing can be said" in result.sentences()[0]


def test_sft_is_the_numerator_and_every_pair_is_there():
    arms = dict.fromkeys(("grpo", "rft", "sft"), hill)
    result = study(frame(arms, noise=4, sizes=[1, 10, 100, 1000, 10000]), target=0.8)
    pairs = {(r.numerator, r.denominator) for r in result.ratios}
    assert pairs == {("sft", "grpo"), ("sft", "rft"), ("grpo", "rft")}


def test_parallelism_is_rejected_only_where_curves_are_not_parallel():
    def p(other):
        table = frame({"sft": other, "grpo": hill}, noise=10)
        design = designs(from_frame(table, "t"), Selection())[0]
        return parallel_test(gather(design, Question(target=0.7), np.random.default_rng(0)), 0, 1)

    assert p(lambda x: hill(x, midpoint=3000.0)) > 0.01
    assert p(lambda x: hill(x, upper=0.75, slope=0.5)) < 1e-4


def test_the_ratio_is_given_against_the_target():
    table = frame({"sft": lambda x: hill(x, midpoint=1000.0), "grpo": hill}, noise=4)
    found = next(r for r in study(table).ratios if r.estimator == "hill")
    middle = found.against_target[4]
    assert middle.low < 10 < middle.high
    assert [a.target for a in found.against_target] == sorted(a.target for a in found.against_target)


def test_interval_brackets_the_estimate_on_the_log_axis():
    found = next(r for r in study(frame({"sft": hill, "grpo": hill}, noise=5), target=0.8).ratios if r.answer)
    assert found.low < found.estimate < found.high
    assert math.log(found.high / found.low) < math.log(10)


def test_ratios_are_printed_with_two_digits():
    assert [times(x) for x in (12.34, 0.3456, 1234.0, 2.0)] == ["12×", "0.35×", "1,200×", "2×"]
