import itertools
import math

import numpy as np
import pytest
from fakes import unhurried
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from capacity_analysis.statistics.seed_tests import (
    dispersion,
    maximum_modulus,
    mcnemar,
    mean_change,
    permutation_test,
    power,
    size_changes,
    smallest_drop,
)

grids = hnp.arrays(float, (5, 3), elements=st.floats(0.2, 0.8))


def draw(seeds, spread=0.02, truth=(0.5, 0.6, 0.8), key=0):
    generator = np.random.default_rng(key)
    return np.array(truth) + spread * generator.standard_normal((seeds, len(truth)))


def change(new, old, paired=True, margin=0.02, alpha=0.05, resolution=0.0):
    return mean_change(new, old, paired=paired, margin=margin, alpha=alpha, resolution=resolution)


def test_paired_change_is_that_of_scipy():
    new, old = draw(5, key=1), draw(5, key=2)
    ours, theirs = change(new, old), stats.ttest_rel(new.mean(1), old.mean(1), alternative="less")
    assert ours.p_worse == pytest.approx(theirs.pvalue, rel=1e-12)
    both = stats.ttest_rel(new.mean(1), old.mean(1)).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((both.low, both.high), rel=1e-12)
    shifted = stats.ttest_rel(new.mean(1) + 0.02, old.mean(1), alternative="greater")
    assert ours.p_inferior == pytest.approx(shifted.pvalue, rel=1e-10)


def test_change_of_two_samples_is_that_of_scipy():
    new, old = draw(3, key=1), draw(8, 0.01, key=2)
    ours = change(new, old, paired=False)
    theirs = stats.ttest_ind(new.mean(1), old.mean(1), equal_var=False, alternative="less")
    assert ours.p_worse == pytest.approx(theirs.pvalue, rel=1e-12)
    both = stats.ttest_ind(new.mean(1), old.mean(1), equal_var=False).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((both.low, both.high), rel=1e-12)
    assert ours.df == pytest.approx(theirs.df, rel=1e-12)


@unhurried
@given(grids, grids, st.booleans())
def test_exchanging_the_studies_turns_the_interval_round(new, old, paired):
    a, b = change(new, old, paired, resolution=0.001), change(old, new, paired, resolution=0.001)
    assert (a.low, a.high) == pytest.approx((-b.high, -b.low), abs=1e-12)
    assert a.p_worse == pytest.approx(1 - b.p_worse, abs=1e-12)


@unhurried
@given(grids, grids, st.permutations(range(5)), st.permutations(range(3)))
def test_order_of_seeds_and_sizes_does_not_matter(new, old, seeds, sizes):
    index = np.ix_(list(seeds), list(sizes))
    a, b = change(new, old, resolution=0.001), change(new[index], old[index], resolution=0.001)
    assert (a.estimate, a.low, a.p_worse) == pytest.approx((b.estimate, b.low, b.p_worse), abs=1e-9)


@unhurried
@given(grids, grids, st.floats(0.001, 0.5))
def test_interval_and_p_say_the_same(new, old, alpha):
    found = change(new, old, alpha=alpha, resolution=0.001)
    assume(min(abs(found.p_worse - alpha), abs(found.p_inferior - alpha)) > 1e-9)
    assert (found.high < 0) == (found.p_worse < alpha)
    assert (found.low > -0.02) == (found.p_inferior < alpha)


def test_a_spread_below_one_answer_is_not_believed():
    old = np.full((3, 1), 0.5)
    new = old - 1 / 8
    assert change(new, old).p_worse == 0.0
    assert change(new, old, resolution=1 / 8).p_worse == pytest.approx(stats.t.sf(math.sqrt(3), 2), rel=1e-12)
    same = change(old, old)
    assert (same.estimate, same.p_worse, same.low, same.high) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("new", "old", "paired"), [((1, 3), (5, 3), False), ((5, 2), (5, 3), False), ((4, 3), (5, 3), True)]
)
def test_what_cannot_be_compared_is_refused(new, old, paired):
    with pytest.raises(ValueError, match="cannot be compared"):
        change(np.zeros(new), np.zeros(old), paired)


@pytest.mark.parametrize(
    ("paired", "seeds", "smallest"), [(True, 3, 1 / 8), (True, 5, 1 / 32), (False, 3, 0.05), (False, 5, 1 / 252)]
)
def test_smallest_p_of_a_permutation(paired, seeds, smallest):
    old = draw(seeds)
    found = permutation_test(old - 0.5, old, paired=paired, generator=np.random.default_rng(0))
    assert found.p == found.smallest == smallest


@pytest.mark.parametrize("paired", [True, False])
def test_permutation_is_that_of_scipy(paired):
    new, old = draw(5, key=5) - 0.005, draw(5, key=6)
    ours = permutation_test(new, old, paired=paired, generator=np.random.default_rng(0))
    theirs = stats.permutation_test(
        (new.mean(1), old.mean(1)),
        lambda a, b: a.mean() - b.mean(),
        permutation_type="samples" if paired else "independent",
        alternative="less",
        n_resamples=np.inf,
    )
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert ours.arrangements == (32 if paired else 252)


@pytest.mark.parametrize("paired", [True, False])
def test_random_arrangements_come_close_to_all(paired, monkeypatch):
    new, old = draw(7, key=5) - 0.006, draw(7, key=6)
    exact = permutation_test(new, old, paired=paired, generator=np.random.default_rng(0))
    monkeypatch.setattr("capacity_analysis.statistics.seed_tests.EXACT_ARRANGEMENTS", 10)
    drawn = permutation_test(new, old, paired=paired, generator=np.random.default_rng(0))
    assert drawn.arrangements == 9_999
    assert drawn.smallest == 1e-4
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p * (1 - exact.p) / 9_999))


# Stoline and Ury, "Tables of the studentized maximum modulus distribution", Technometrics 1979: 5 %.
@pytest.mark.parametrize(("count", "df", "quantile"), [(3, 10, 2.83), (5, 10, 3.10), (3, 5, 3.40), (10, 20, 3.114)])
def test_studentized_maximum_modulus(count, df, quantile):
    assert maximum_modulus(0.95, count, df) == pytest.approx(quantile, abs=0.006)


def test_maximum_modulus_lies_between_one_t_and_bonferroni():
    for count, df in itertools.product((1, 2, 6), (1.0, 2.5, 40.0)):
        found = maximum_modulus(0.95, count, df)
        assert stats.t.ppf(0.975, df) - 1e-6 <= found <= stats.t.ppf(1 - 0.025 / count, df) + 1e-6


def test_band_holds_for_all_sizes_together():
    generator = np.random.default_rng(3)
    answers = np.full(4, 1000)
    truth, spread = np.array([0.5, 0.6, 0.8, 0.95]), np.array([0.03, 0.01, 0.01, 0.005])
    outside = 0
    for _ in range(600):
        old, new = (
            np.clip(np.round((truth + spread * generator.standard_normal((5, 4))) * 1000), 0, 1000) / 1000 for _ in "ab"
        )
        found = size_changes(new, old, answers, paired=True, alpha=0.05)
        outside += any(size.low > 0 or size.high < 0 for size in found)
    assert outside / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_the_size_that_fell_is_found_and_only_that():
    old = draw(5, 0.01, key=1)
    new = draw(5, 0.01, key=2) - np.array([0, 0.15, 0])
    found = size_changes(new, old, np.full(3, 1000), paired=True, alpha=0.05)
    assert [size.high < 0 for size in found] == [False, True, False]
    assert found[1].estimate == pytest.approx(float((new - old)[:, 1].mean()), abs=1e-12)


@unhurried
@given(grids, grids, st.booleans())
def test_band_holds_the_change_and_stays_within_reach(new, old, paired):
    for size in size_changes(new, old, np.full(3, 1000), paired=paired, alpha=0.05):
        assert -1 <= size.low <= size.high <= 1


@pytest.mark.parametrize(
    ("drop", "df", "level", "margin"),
    [(0.05, 4, 0.05, 0.02), (0.03, 2, 0.025, 0.02), (0.04, 9, 0.005, 0.0), (0.0, 4, 0.05, 0.0)],
)
def test_power_is_that_of_simulated_checks(drop, df, level, margin):
    generator = np.random.default_rng(1)
    error, count = 0.011, 200_000
    estimate = -drop + error * generator.standard_normal(count)
    seen = error * np.sqrt(generator.chisquare(df, count) / df)
    called = (estimate / seen <= -stats.t.ppf(1 - level, df)) & (estimate < -margin)
    share = float(called.mean())
    assert power(drop, error, df, margin, level) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count))


def test_power_without_margin_is_that_of_the_noncentral_t():
    for drop, df in itertools.product((0.0, 0.01, 0.05), (2.0, 4.0, 12.5)):
        exact = stats.nct.sf(stats.t.ppf(0.95, df), df, drop / 0.01)
        assert power(drop, 0.01, df, 0.0, 0.05) == pytest.approx(exact, abs=1e-6)


def test_smallest_drop_has_the_power_that_was_asked_for():
    for error, df, level in itertools.product((0.0005, 0.01, 0.04), (2.0, 9.0), (0.05, 0.005)):
        drop = smallest_drop(error, df, 0.02, level)
        if drop is None:
            assert power(1.0, error, df, 0.02, level) < 0.8
        else:
            assert power(drop, error, df, 0.02, level) == pytest.approx(0.8, abs=0.005)
    assert smallest_drop(0.0, 4, 0.02, 0.05) == 0.02
    assert smallest_drop(0.5, 2, 0.02, 0.005) is None


def test_mcnemar():
    assert mcnemar(10, 2) == pytest.approx(0.038574, abs=5e-7)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == 1.0


def test_dispersion_of_binomial_draws_is_one():
    generator = np.random.default_rng(0)
    answers = np.array([500, 1000, 2000])
    p = np.array([0.2, 0.5, 0.9])
    found = dispersion(generator.binomial(answers, p, (400, 3)) / answers, answers)
    assert found == pytest.approx(1, abs=0.12)
    # Items with difficulties of their own: below binomial, SD .0064 against .0105 in the mean.
    items = generator.beta(0.5, 0.1, 1319)
    fixed = (generator.random((400, 1319)) < items).mean(1, keepdims=True)
    assert dispersion(fixed, np.array([1319])) == pytest.approx((0.0064 / 0.0105) ** 2, abs=0.1)
    assert dispersion(np.ones((3, 2)), np.array([5, 5])) is None
