"""The smallest difference that a design could have shown, against the noncentral t and against simulated studies."""

import numpy as np
import pytest
from scipy import optimize, stats

from capacity_analysis.statistics.crossed import Crossed
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate, difference_estimate

MANY = 10**12  # items: nothing is left of the least half-width


def found(of_seeds: float, of_items: float, seeds: int, items: int) -> Estimate:
    """A difference whose mean has these variances, between seeds and between items."""
    crossed = Crossed(of_seeds, of_items, 0.0, seeds - 1, items - 1, (seeds - 1) * (items - 1))
    return Estimate(0.0, -0.1, 0.1, "seeds and items", seeds, items, crossed=crossed)


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_if_only_seeds_scatter_it_is_that_of_students_t(seeds: int) -> None:
    error, df = 0.01, seeds - 1
    quantile = stats.t.ppf(0.975, df)
    noncentrality = optimize.brentq(lambda nc: stats.nct.sf(quantile, df, nc) - 0.8, 0.1, 40)
    assert smallest_detectable(found(error**2, 0.0, seeds, MANY)) == pytest.approx(noncentrality * error, rel=1e-4)


def test_if_only_items_scatter_it_is_that_of_the_normal() -> None:
    wanted = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.01
    assert smallest_detectable(found(0.0, 1e-4, 5, MANY)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("seeds", "items", "of_seeds", "of_items"),
    [(5, 1024, 0.02, 0.3), (3, 1024, 0.03, 0.3), (5, 256, 0.0, 0.5), (5, 400, 0.01, 0.05)],
)
def test_four_of_five_simulated_studies_show_it(seeds: int, items: int, of_seeds: float, of_items: float) -> None:
    """`of_seeds`, `of_items`: standard deviations of a seed and of an item. The third interval rests on items alone."""
    true = smallest_detectable(found(of_seeds**2 / seeds, of_items**2 / items, seeds, items))
    assert true is not None
    generator, studies = np.random.default_rng(0), 4000
    shown = 0
    for _ in range(studies):
        a, b = generator.normal(0, of_seeds, (seeds, 1)), generator.normal(0, of_items, items)
        shown += difference_estimate(true + a + b, np.zeros((1, items))).sign > 0
    assert shown / studies == pytest.approx(0.8, abs=3.5 * (0.8 * 0.2 / studies) ** 0.5)


@pytest.mark.parametrize("seeds", [3, 5])
def test_where_seeds_do_not_differ_four_of_five_studies_of_answers_show_it(seeds: int) -> None:
    """Answers are 0 or 1, so most of the variance is the residual, and the component between seeds is often dropped."""
    generator, studies, items = np.random.default_rng(1), 3000, 400
    residual = 0.5 / (seeds * items)  # of the difference of two arms that answer each item rightly half the time
    crossed = Crossed(0.0, 0.9 * residual, residual, seeds - 1, items - 1, (seeds - 1) * (items - 1))
    true = smallest_detectable(Estimate(0.0, -0.1, 0.1, "seeds and items", seeds, items, crossed=crossed))
    assert true is not None
    shown = 0
    for _ in range(studies):
        ours, theirs = (generator.random((seeds, items)) < 0.5 + share for share in (true / 2, -true / 2))
        shown += difference_estimate(ours.astype(float), theirs.astype(float)).sign > 0
    assert shown / studies == pytest.approx(0.8, abs=3.5 * (0.8 * 0.2 / studies) ** 0.5)


def test_answers_that_agree_show_what_the_items_that_were_not_asked_leave() -> None:
    agreed = difference_estimate(np.ones((3, 1024)), np.ones((3, 1024)))
    assert agreed.high is not None
    assert smallest_detectable(agreed) == pytest.approx(agreed.high)


def test_more_seeds_show_smaller_differences() -> None:
    shown = [smallest_detectable(found(0.02**2 / seeds, 1e-5, seeds, 1024)) for seeds in (2, 3, 5, 10)]
    assert shown == sorted(shown, reverse=True)
    assert len(set(shown)) == 4


def test_what_cannot_be_told_is_none() -> None:
    one_seed = difference_estimate(np.array([[1.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 1.0]]))
    assert smallest_detectable(one_seed) is None
    assert smallest_detectable(Estimate.none(0.1, 3)) is None
    assert smallest_detectable(found(0.09, 1e-5, 2, 1024)) is None  # Student's quantile for two seeds is 12.7
