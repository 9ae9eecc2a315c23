"""What runs of one seed share: the parts of the covariance are those that simulated seeds have."""

import numpy as np
import pytest

from capacity_analysis.statistics.spread import spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, differences
from capacity_analysis.thresholds.seed_components import seed_effects

LOG_SIZES = np.arange(0.0, 7.0)
ANSWERS = np.full(7, 1e6)
STUDIES = 3000


def curve(log_size):
    return 0.5 + 0.4 / (1 + 10.0 ** (2.5 - log_size))


def runs(seeds, shift, rng, level=0.0, own=0.008, alike=0.0):
    """Accuracies of two equal curves, N × K × S each. Seeds move them along log size by `shift` decades (SD)."""
    common, levels = rng.normal(size=(STUDIES, 1, seeds)), level * rng.normal(size=(STUDIES, 1, seeds))
    found = []
    for _ in range(2):
        moves = np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(size=(STUDIES, 1, seeds))
        errors = levels + own * rng.normal(size=(STUDIES, 7, seeds))
        found.append(curve(LOG_SIZES[:, None] + shift * moves) + errors)
    return found


def effects(accuracies, seeds):
    spreads = [spread_of_seeds(a, ANSWERS) for a in accuracies]
    return seed_effects([LOG_SIZES] * 2, spreads, [range(seeds)] * 2), spreads


def test_a_shift_along_log_size_gives_each_size_its_own_variance() -> None:
    found, spreads = effects(runs(5, 0.2, np.random.default_rng(0)), 5)
    expected = np.cov(np.concatenate([s.mean for s in spreads], axis=1).T)
    shift = found.shift.mean(0)
    assert shift[2, 3] == pytest.approx(expected[2, 3], rel=0.15)
    assert shift[9, 10] == pytest.approx(expected[9, 10], rel=0.15)
    assert shift[[0, 6], [0, 6]] == pytest.approx([0, 0], abs=0.05 * expected[2, 2])
    # Without the shift every size would have nearly the same variance.
    assert expected[2, 2] > 2.5 * np.diag(expected).mean()


def test_the_shift_is_added_to_the_pooled_spread() -> None:
    found, spreads = effects(runs(4, 0.2, np.random.default_rng(1), level=0.005), 4)
    pooled = np.einsum("nkk->nk", found.own + found.level)
    assert pooled == pytest.approx(np.concatenate([spread.between for spread in spreads], axis=1))


def test_every_covariance_is_positive_definite() -> None:
    found, _ = effects(runs(3, 0.3, np.random.default_rng(2), alike=0.8), 3)
    assert np.linalg.eigvalsh(found.covariance).min() > 0


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_that_only_scatter_have_hardly_a_shift(seeds) -> None:
    found, _ = effects(runs(seeds, 0.0, np.random.default_rng(3)), seeds)
    assert np.median(found.shift) == 0
    assert np.einsum("nkk->n", found.shift).mean() < 0.08 * np.einsum("nkk->n", found.covariance).mean()


def test_shifts_that_both_arms_share_are_correlated() -> None:
    apart, _ = effects(runs(5, 0.2, np.random.default_rng(4)), 5)
    alike, _ = effects(runs(5, 0.2, np.random.default_rng(4), alike=1.0), 5)
    assert abs(apart.shift[:, 2, 9].mean()) < 0.3 * alike.shift[:, 2, 9].mean()


def test_the_variance_of_a_sum_follows_the_shift() -> None:
    rng = np.random.default_rng(5)
    spreads = [spread_of_seeds(a, ANSWERS) for a in runs(5, 0.2, rng)]
    found = differences([LOG_SIZES] * 2, spreads, [range(5)] * 2, Aim(np.full(STUDIES, 0.8)))
    weights = np.zeros((STUDIES, 14))
    weights[:, [2, 3]] = 0.5
    variance, df, _ = found.variance(weights)
    assert variance.mean() == pytest.approx((found.z * weights).sum(1).var(), rel=0.15)
    assert 4 <= np.median(df) < 9  # two arms of five seeds


@pytest.mark.parametrize(("shift", "level"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.01)])
def test_degrees_of_freedom_are_those_that_the_variance_has(shift, level) -> None:
    """By the definition of Satterthwaite: twice the squared mean over the variance."""
    found, _ = effects(runs(5, shift, np.random.default_rng(6), level=level), 5)
    weights = np.zeros((STUDIES, 14))
    weights[:, [2, 3]] = 0.5
    variance = 0.5 * found.squares(weights) + 0.5 * found.variance(weights)
    assert np.median(found.variance_df(weights, 0.5)) == pytest.approx(
        2 * variance.mean() ** 2 / variance.var(), rel=0.25
    )


@pytest.mark.parametrize(("few", "share"), [(2, 0.0), (2, 1.0), (4, 0.0), (4, 0.5)])
def test_sizes_with_few_runs_have_few_degrees_of_freedom_beside_one_with_many(few, share) -> None:
    accuracies = runs(8, 0.0, np.random.default_rng(7))
    for arm in accuracies:
        arm[:, [0, 1, 2, 4, 5, 6], few:] = np.nan
    found, _ = effects(accuracies, 8)
    weights = np.zeros((STUDIES, 14))
    weights[:, [2, 3]] = 0.5
    variance = share * found.squares(weights) + (1 - share) * found.variance(weights)
    true = 2 * variance.mean() ** 2 / variance.var()
    assert np.median(found.variance_df(weights, share)) == pytest.approx(true, rel=0.25)
    even = 7 / (share**2 + 2 * share * (1 - share) / 7 + (1 - share) ** 2 / 7)
    assert true < 0.7 * even  # what eight runs at each size would have


def test_one_seed_has_no_effects_to_tell() -> None:
    spread = spread_of_seeds(curve(LOG_SIZES)[None, :, None], np.full(7, 1000.0))
    found = seed_effects([LOG_SIZES], [spread], [None])
    assert found.df == 0
    assert not found.level.any()
    assert not found.shift.any()
