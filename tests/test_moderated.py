"""Variances of sizes between their own and a pooled one: when they move, how far, and what is gained."""

import numpy as np
import pytest
from scipy.special import polygamma

from capacity_analysis.statistics.moderated import _inverse_trigamma, unpooled_share
from capacity_analysis.statistics.spread import spread_of_seeds

STUDIES, SIZES, ANSWERS = 2000, 8, np.full(8, 1e5)


def drawn(seeds, deviations, rng, mean=0.7):
    """Accuracies of sizes with their own standard deviations, N × K × S."""
    return mean + np.broadcast_to(deviations, (STUDIES, SIZES))[:, :, None] * rng.normal(size=(STUDIES, SIZES, seeds))


@pytest.mark.parametrize("value", [0.01, 0.3, 1.0, 5.0, 100.0])
def test_the_inverse_of_the_trigamma_function(value):
    assert polygamma(1, _inverse_trigamma(np.array([value])))[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_sizes_that_spread_alike_are_pooled(seeds):
    spread = spread_of_seeds(drawn(seeds, 0.01, np.random.default_rng(0)), ANSWERS)
    assert (spread.unpooled > 0).any(1).mean() <= 0.003  # the test of equal variances has a level of 0.1 %
    assert np.median(spread.between_df) == SIZES * (seeds - 1)


def test_the_prior_has_the_degrees_of_freedom_that_variances_were_drawn_with():
    """Variances that are drawn from a scaled inverse chi-squared distribution, as Smyth (2004) has them."""
    rng, prior = np.random.default_rng(1), 4.0
    deviations = 0.01 * np.sqrt(prior / rng.chisquare(prior, size=(STUDIES, SIZES)))
    spread = spread_of_seeds(drawn(30, deviations, rng), ANSWERS)
    assert np.median(spread.unpooled) == pytest.approx(29 / (29 + prior), abs=0.03)


def test_means_of_sizes_that_spread_differently_are_weighted_better_than_by_one_pooled_variance():
    """The mean over sizes with the weights of each variance is nearer to the truth than with equal weights."""
    rng = np.random.default_rng(2)
    deviations = 0.01 * np.exp(rng.normal(size=(STUDIES, SIZES)))
    spread = spread_of_seeds(drawn(10, deviations, rng), ANSWERS)
    weights = 1.0 / spread.between
    weighted = (weights * spread.mean).sum(1) / weights.sum(1)
    assert weighted.std() < 0.6 * spread.mean.mean(1).std()


def test_the_variance_of_a_size_lies_between_its_own_and_the_pooled_one():
    rng = np.random.default_rng(4)
    accuracy = drawn(10, 0.001 * np.exp(rng.normal(size=(STUDIES, SIZES))), rng)
    spread, own = spread_of_seeds(accuracy, ANSWERS), accuracy.var(2, ddof=1) / 10
    moved = np.flatnonzero((spread.unpooled > 0).any(1))
    pooled = (spread.between - spread.unpooled * own) / (1 - spread.unpooled)
    assert len(moved) > 0.9 * STUDIES
    assert pooled[moved] == pytest.approx(np.repeat(own.mean(1, keepdims=True), SIZES, axis=1)[moved], rel=0.05)


def test_two_sizes_are_pooled():
    squares = np.array([[1e-6, 1.0]])
    assert not unpooled_share(squares, np.ones((1, 2)), np.array([9, 9]), np.full((1, 2), 1e-9)).any()


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_pooled_variance_is_that_of_training_or_of_answers_as_the_seeds_tell(power):
    """One number for all sizes, or a multiple of p (1 − p)."""
    rng, mean = np.random.default_rng(3), np.linspace(0.5, 0.99, SIZES)
    truth = 1e-4 * (mean * (1 - mean) / 0.25) ** power
    accuracy = mean[:, None] + np.sqrt(truth)[:, None] * rng.normal(size=(STUDIES, SIZES, 10))
    found = 10 * spread_of_seeds(accuracy, ANSWERS).between
    assert np.median(found, axis=0) == pytest.approx(truth, rel=0.1)
