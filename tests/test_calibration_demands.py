"""The demands of the calibration: what fails, and which reasons excuse an interval that covers more or is wider."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "proofs"))

from calibration_demands import exceeded, judged, widths_without_a_curve

WITHOUT = {"without": {"seeds": 20}}


def result(coverage=0.95, width=1.0, ideal=1.0, claims=0.0, no_curve=1.0):
    """A case whose three intervals are alike."""
    found = {"name": "case", "claims 10": claims, "truth": (1.0, 1.0, 0.0)}
    for name in ("sft", "grpo", "ratio"):
        found |= {f"{name} default": (coverage, width), f"{name} ideal": ideal, f"{name} no curve": no_curve}
    return found


def test_a_case_within_the_limits_misses_nothing():
    assert judged(result(0.93, 1.15), {}, None) == []
    assert exceeded(result(0.98, 1.15)) == []


@pytest.mark.parametrize("raw", [{}, WITHOUT, {"no_curve": True}])
def test_no_reason_excuses_low_coverage_or_false_claims(raw):
    counterpart = result() if "without" in raw else None
    assert len(judged(result(0.929), raw, counterpart)) == 3
    assert judged(result(claims=0.03), raw, counterpart) == ["case: 3.0 % false claims"]


@pytest.mark.parametrize("found", [result(0.99), result(width=1.2)])
def test_what_exceeds_the_limits_needs_a_reason_that_holds(found):
    assert len(judged(found, {}, None)) == 3
    assert judged(found, WITHOUT, result()) == []
    for still in (result(0.99), result(width=1.2), result(0.9)):
        assert len(judged(found, WITHOUT, still)) == 3


def test_no_curve_excuses_only_the_width_that_tested_sizes_allow():
    raw = {"no_curve": True}
    assert judged(result(1.0, 2.0, no_curve=2.0), raw, None) == []
    assert len(judged(result(1.0, 2.0, no_curve=1.0), raw, None)) == 3
    assert judged(result(1.0, np.inf, np.nan, no_curve=np.inf), raw, None) == []
    assert len(judged(result(1.0, np.inf, np.nan, no_curve=2.0), raw, None)) == 3


def test_the_width_without_a_curve_is_that_of_the_gap_between_sizes_that_are_told_apart():
    log_sizes, rng = np.arange(5.0), np.random.default_rng(0)
    steps = np.array([-0.1, -0.1, 0.1, 0.1, 0.1])
    plateau = np.array([-0.1, 0.001, 0.001, 0.001, 0.1])
    z = np.concatenate([steps, plateau]) + 0.01 * rng.normal(size=(4000, 10))
    assert widths_without_a_curve(log_sizes, z) == {"sft": 1.0, "grpo": 4.0, "ratio": 5.0}
    below = np.concatenate([steps, np.full(5, -0.1)]) + 0.01 * rng.normal(size=(4000, 10))
    assert np.isinf(widths_without_a_curve(log_sizes, below)["grpo"])
