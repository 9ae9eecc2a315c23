"""The crossed model of seeds × items: against REML by other programs, and coverage and power by simulation."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.regression.mixed_linear_model import MixedLM

from capacity_analysis.statistics.crossed import Crossed, SeedVariance
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_analysis.types import Array


def table(seeds: int, items: int, of_seeds: float, of_items: float, seed: int) -> Array:
    """Normal effects and a residual of standard deviation 0.4."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_items, items)
    return effects + rng.normal(0, 0.4, (seeds, items)) + 0.1


def components(found: Crossed, seeds: int, items: int) -> tuple[float, float, float]:
    """Variances between seeds, between items, and of the residual."""
    return (
        (found.seeds - found.residual) * seeds,
        (found.items - found.residual) * items,
        found.residual * seeds * items,
    )


def restricted_deviance(logs: Array, y: Array, seeds: int, items: int) -> float:
    """−2 × the restricted log-likelihood of a table, from its dense covariance matrix."""
    a, b, c = np.exp(logs)
    covariance = (
        a * np.kron(np.eye(seeds), np.ones((items, items)))
        + b * np.kron(np.ones((seeds, seeds)), np.eye(items))
        + c * np.eye(seeds * items)
    )
    inverse, ones = np.linalg.inv(covariance), np.ones(seeds * items)
    information = ones @ inverse @ ones
    residual = y.ravel() - (ones @ inverse @ y.ravel()) / information
    return float(np.linalg.slogdet(covariance)[1] + math.log(information) + residual @ inverse @ residual)


@pytest.mark.parametrize(("seeds", "items", "seed"), [(3, 12, 1), (4, 15, 2), (5, 10, 3)])
def test_mean_squares_give_the_reml_estimates(seeds: int, items: int, seed: int) -> None:
    y = table(seeds, items, 0.5, 0.5, seed)
    ours = components(Crossed.of(y), seeds, items)
    assert min(ours) > 0.01  # where no component is negative the two are the same
    found = optimize.minimize(
        restricted_deviance, np.log([0.1, 0.1, 0.1]), (y, seeds, items), "Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000},
    )  # fmt: skip
    assert np.exp(found.x) == pytest.approx(ours, rel=1e-4)


def test_variance_of_the_mean_is_that_of_statsmodels() -> None:
    seeds, items = 5, 30
    y = table(seeds, items, 0.3, 0.3, 4)
    frame = pd.DataFrame(
        {
            "y": y.ravel(),
            "all": 1,
            "seed": np.repeat(np.arange(seeds), items),
            "item": np.tile(np.arange(items), seeds),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its optimiser
        of = {"seed": "0+C(seed)", "item": "0+C(item)"}
        model = MixedLM.from_formula("y ~ 1", frame, groups="all", vc_formula=of)
        theirs = model.fit(reml=True, method="lbfgs")
    found = Crossed.of(y)
    assert not found.dropped
    assert theirs.params["Intercept"] == pytest.approx(y.mean(), abs=1e-8)
    assert theirs.bse["Intercept"] == pytest.approx(math.sqrt(found.variance), rel=1e-3)


def test_seeds_that_do_not_differ_are_tested_as_in_the_analysis_of_variance() -> None:
    y = table(4, 20, 0.0, 0.5, 5)
    found = Crossed.of(y)
    means, rest = y.mean(1), y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    ratio = (20 * means.var(ddof=1)) / ((rest**2).sum() / (3 * 19))
    assert found.seeds_differ_p == pytest.approx(stats.f.sf(ratio, 3, 57))


def test_one_seed_and_one_item_have_the_variance_that_is_left() -> None:
    y = table(1, 50, 0.0, 0.5, 6)
    assert Crossed.of(y).half_width(0.95) == pytest.approx(stats.t.ppf(0.975, 49) * stats.sem(y[0]))
    assert Crossed.of(y.T).half_width(0.95) == pytest.approx(stats.t.ppf(0.975, 49) * stats.sem(y[0]))
    assert Crossed.of(y[:, :1]).half_width(0.95) == 0
    assert Crossed.of(y).seeds_differ_p is None


def test_two_seeds_never_say_that_seeds_do_not_differ() -> None:
    same = np.repeat(table(1, 50, 0.0, 0.5, 7), 2, axis=0) + np.array([[0.001], [0.0]])
    same[0, :25] += 0.1
    same[0, 25:] -= 0.1
    found = Crossed.of(same)
    assert found.seeds_differ_p is not None
    assert found.seeds_differ_p > 0.45
    assert not found.dropped


def test_a_component_between_seeds_never_makes_an_interval_narrower() -> None:
    found = Crossed.of(table(3, 200, 0.05, 0.3, 8))
    around = found.dropped_below * np.array([0.1, 0.999, 1.001, 3.0, 30.0])
    widths = found.half_widths(around, 0.95)
    assert widths[0] == widths[1]
    assert list(widths) == sorted(widths)


def answers(
    rng: np.random.Generator, studies: int, seeds: int, items: int, spread: tuple[float, ...], draws: str = "seed"
) -> Array:
    """Right answers of arms that are equally good over all items, studies × arms × seeds × items.

    Args:
        rng: draws everything.
        studies, seeds, items: how many.
        spread: for each arm, the standard deviation of its seeds on the scale of logits.
        draws: "apart": each run has its own uniforms; "seed": runs of one seed share them; "common": all runs do.
    """
    logits = rng.normal(0.5, 1.5, (studies, 1, 1, items)) + rng.normal(0, 0.5, (studies, 1, seeds, 1))
    own = np.array(spread)[:, None, None] * rng.standard_normal((studies, len(spread), seeds, 1))
    own = own + rng.normal(0, 0.5, (studies, len(spread), 1, items))  # what an arm finds hard
    shape = {"apart": (len(spread), seeds), "seed": (1, seeds), "common": (1, 1)}[draws]
    uniforms = rng.random((studies, *shape, items))
    return (uniforms < 1 / (1 + np.exp(-logits - own))).astype(float)


@pytest.mark.parametrize("draws", ["apart", "seed", "common"])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_arms_are_told_apart_in_2_to_7_percent_of_studies(seeds: int, spread: float, draws: str) -> None:
    """Nominal is 5 %. Three standard errors of the simulation are granted on either side of 2 and 7."""
    studies = 1200
    made = answers(np.random.default_rng(9), studies, seeds, 256, (spread, spread), draws)
    apart = sum(difference_estimate(one, two).sign != 0 for one, two in made) / studies
    low, high = (p + sign * 3 * (p * (1 - p) / studies) ** 0.5 for p, sign in ((0.02, -1), (0.07, 1)))
    assert low <= apart <= high


def test_five_seeds_of_1024_items_show_four_points_in_four_of_five_studies() -> None:
    rng, studies = np.random.default_rng(10), 500
    shown = 0
    for _ in range(studies):
        chance = 0.96 * rng.beta(2.4, 1.6, 1024)
        ours, theirs = rng.random((5, 1024)) < chance + 0.04, rng.random((5, 1024)) < chance
        shown += difference_estimate(ours.astype(float), theirs.astype(float)).sign > 0
    assert shown / studies > 0.8


def test_the_test_of_equal_variances_has_its_level() -> None:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(3000):
        accuracies = 0.6 + 0.02 * rng.standard_normal((3, 5)) + 0.05 * rng.standard_normal(5)
        over = SeedVariance.of(accuracies)
        own = Crossed((accuracies[0] - accuracies[2]).var(ddof=1) / 5, 0.0, 0.0, 4, 0, 0)
        assert over is not None
        found.append(over.equal_p(own))
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_variances_are_pooled_only_where_they_are_alike_and_the_pair_has_not_the_larger_one() -> None:
    own = Crossed(4e-4, 1e-5, 1e-5, 4, 399, 4 * 399)
    alike, larger, smaller = (SeedVariance(square, 8) for square in (5e-4, 1e-1, 3e-4))
    pooled = own.pooled(alike)
    assert (pooled.seeds, pooled.seed_df) == (5e-4, 8)
    assert pooled.pooled_p == pytest.approx(2 * stats.f.cdf(4e-4 / 6e-4, 4, 4))
    assert pooled.half_width(0.95) < own.half_width(0.95)
    assert own.pooled(larger) == own
    assert own.pooled(smaller) == own


@pytest.mark.parametrize("spread", [(0.0, 0.0, 0.0), (0.2, 0.2, 0.2), (0.3, 0.0, 0.0), (0.5, 0.5, 0.1)])
def test_pooled_over_methods_equal_arms_are_told_apart_no_more_often(spread: tuple[float, ...]) -> None:
    studies = 1200
    told = np.zeros(3)
    for arms in answers(np.random.default_rng(12), studies, 4, 256, spread):
        over = SeedVariance.of(arms.mean(2))
        for place, (one, two) in enumerate(((0, 1), (0, 2), (1, 2))):
            told[place] += difference_estimate(arms[one], arms[two], over_methods=over).sign != 0
    assert max(told / studies) <= 0.07 + 3 * (0.07 * 0.93 / studies) ** 0.5


def test_fewer_than_three_methods_or_seeds_have_nothing_to_pool() -> None:
    assert SeedVariance.of(np.zeros((2, 5))) is None
    assert SeedVariance.of(np.zeros((3, 2))) is None
