"""Collapsed seeds: which they are, what share of seeds they allow, and the exact test of a larger share."""

import itertools

import numpy as np
import pytest
from scipy import stats

from capacity_analysis.statistics.collapses import (
    CollapsedShare,
    collapsed,
    collapsed_of_curve,
    expected_accuracy,
    more_collapses_p,
)


def counted(count: int, seeds: int) -> CollapsedShare:
    return CollapsedShare.of(np.arange(seeds) < count)


def test_a_seed_ten_points_below_the_median_has_collapsed() -> None:
    accuracies = np.array([0.80, 0.82, 0.70, 0.81, 0.25])
    assert collapsed(accuracies, expected_accuracy(accuracies), 1024).tolist() == [False, False, True, False, True]


def test_the_untrained_model_is_expected_where_it_is_better() -> None:
    accuracies = np.array([0.30, 0.31, 0.52])
    assert expected_accuracy(accuracies, 0.5) == 0.5
    assert collapsed(accuracies, 0.5, 1024).tolist() == [True, True, False]


def test_few_items_need_three_errors() -> None:
    accuracies = np.array([0.5, 0.5, 0.36])
    assert collapsed(accuracies, 0.5, 100).tolist() == [False, False, False]  # an error is 5 points
    assert collapsed(accuracies, 0.5, 400).tolist() == [False, False, True]
    assert collapsed(accuracies, 0.5, None).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("count", "seeds", "low", "high"), [(0, 5, 0.0, 0.52182), (1, 5, 0.00505, 0.71642), (2, 10, 0.02521, 0.55610)]
)
def test_the_interval_is_that_of_clopper_and_pearson(count: int, seeds: int, low: float, high: float) -> None:
    found = counted(count, seeds)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-6)


def test_the_share_is_said_with_its_interval() -> None:
    assert str(counted(1, 5)) == "1 of 5 (0.5–71.6 %)"


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("level", [0.05, 0.005, 0.0005])
@pytest.mark.parametrize("share", [0.002, 0.01])
def test_the_level_is_kept_by_every_share_that_is_tolerated(seeds: int, level: float, share: float) -> None:
    """Exactly, over all counts before and after."""
    chance = stats.binom.pmf(np.arange(seeds + 1), seeds, share)
    false = sum(
        chance[before] * chance[after]
        for before, after in itertools.product(range(seeds + 1), repeat=2)
        if after > before and more_collapses_p(counted(before, seeds), counted(after, seeds), 0.01) <= level
    )
    assert false <= level


def test_where_seeds_collapsed_before_the_test_is_fishers() -> None:
    p = more_collapses_p(counted(1, 10), counted(7, 10), 0.01)
    assert p == pytest.approx(stats.fisher_exact([[7, 3], [1, 9]], "greater").pvalue)
    assert p == pytest.approx(0.009883, abs=5e-7)


def curves(fall: float, noise: float, studies: int = 500) -> np.ndarray:
    """Rising curves of five seeds, N × 6 × 5; the last seed falls at the largest size."""
    rng = np.random.default_rng(0)
    found = np.linspace(0.5, 0.9, 6)[:, None] + noise * rng.normal(size=(studies, 6, 5))
    found[:, -1, -1] -= fall
    return found


def test_a_seed_that_fell_at_one_size_is_told_from_the_others_of_its_curve() -> None:
    found = collapsed_of_curve(curves(0.3, 0.01), np.full(6, 1024.0))
    assert found[:, -1].all()
    assert not found[:, :-1].any()


def test_seeds_that_scatter_widely_have_not_collapsed() -> None:
    wide = curves(0.0, 0.06)
    by_the_median = collapsed(wide, np.median(wide, axis=2, keepdims=True), 1024)
    assert by_the_median.any(1).mean() > 0.2
    assert collapsed_of_curve(wide, np.full(6, 1024.0)).mean() < 0.02


def test_three_seeds_never_tell_which_of_them_collapsed() -> None:
    assert not collapsed_of_curve(curves(0.3, 0.01)[:, :, -3:], np.full(6, 1024.0)).any()


def test_a_size_at_which_seeds_scatter_widely_is_no_collapse() -> None:
    accuracies = curves(0.0, 0.005)
    accuracies[:, -1] += 0.08 * np.random.default_rng(1).normal(size=(500, 5))
    by_the_median = collapsed(accuracies, np.median(accuracies, axis=2, keepdims=True), 1024).any((1, 2)).mean()
    assert by_the_median > 0.3
    assert collapsed_of_curve(accuracies, np.full(6, 1024.0)).any(1).mean() < by_the_median / 3


def test_a_size_may_lack_a_seed() -> None:
    accuracies = curves(0.3, 0.01)
    accuracies[:, 0, 0] = np.nan
    assert collapsed_of_curve(accuracies, np.full(6, 1024.0))[:, -1].all()
