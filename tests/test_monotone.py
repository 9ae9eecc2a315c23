import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from capacity_analysis.statistics.monotone import brackets, first_crossing, isotonic, passing, stays_above

LOG_SIZES = np.arange(5.0)


def test_isotonic_example_of_the_literature():
    values = [1.5, 1, 4, 6, 5.7, 5, 7.8, 9, 7.5, 9.5, 9]
    expected = [1.25, 1.25, 4, *[16.7 / 3] * 3, 7.8, 8.25, 8.25, 9.25, 9.25]
    assert isotonic(values) == pytest.approx(expected, abs=1e-12)


@unhurried
@given(arrays(float, 9, elements=st.floats(0, 1)), arrays(float, 9, elements=st.floats(0.1, 10)))
def test_isotonic_agrees_with_scipy(values, weights):
    assert isotonic(values, weights) == pytest.approx(isotonic_regression(values, weights=weights).x, abs=1e-9)


@unhurried
@given(st.integers(0, 10_000))
def test_rows_with_common_weights_agree_with_scipy(seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 5, 8)
    values = rng.standard_normal((3, 8))
    expected = [isotonic_regression(row, weights=weights).x for row in values]
    assert isotonic(values, weights) == pytest.approx(np.array(expected), abs=1e-12)


def test_rows_are_fitted_apart():
    rows = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    assert isotonic(rows).tolist() == [[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]


def test_passing_interpolates_and_censors():
    fits = np.array([[-1.0, -0.5, 0.5, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5], [-5.0, -4, -3, -2, -1]])
    assert passing(LOG_SIZES, fits).tolist() == [1.5, -np.inf, np.inf]


def test_brackets_are_tested_sizes_around_what_is_significant():
    z = np.array([[-0.2, -0.1, -0.01, 0.1, 0.2]])
    found = brackets(LOG_SIZES, z, np.full((1, 5), 0.02), 2.0)
    assert (found.low[0], found.high[0]) == (1.0, 3.0)


def test_brackets_hold_first_crossing_and_staying_above_of_a_curve_that_is_not_monotone():
    z = np.array([[-0.2, 0.1, -0.1, -0.1, 0.2]])
    found = brackets(LOG_SIZES, z, np.full((1, 5), 0.01), 2.0)
    assert (found.low[0], found.high[0]) == (0.0, 4.0)
    sizes = 10**LOG_SIZES
    assert first_crossing(sizes, z[0], 0.0) == 10.0
    assert stays_above(sizes, z[0], 0.0) == 10000.0


def test_open_ends():
    found = brackets(LOG_SIZES, np.array([[-0.1] * 5, [0.1] * 5]), np.full((2, 5), 0.01), 2.0)
    assert found.low.tolist() == [4.0, -np.inf]
    assert found.high.tolist() == [np.inf, 0.0]


@pytest.mark.parametrize("means", [[-0.05, -0.03, 0.0, 0.02, 0.05], [-0.04, -0.05, 0.02, -0.02, 0.04]])
def test_brackets_cover_both_crossings_whatever_the_shape(means):
    rng = np.random.default_rng(1)
    truth, n = np.array(means), 4000
    found = brackets(LOG_SIZES, truth + 0.02 * rng.normal(size=(n, 5)), np.full((n, 5), 0.02), 1.96)
    first, stays = np.flatnonzero(truth >= 0)[0], np.flatnonzero(truth < 0)[-1] + 1
    assert np.mean((found.low < first) & (found.high >= stays)) > 0.94


def test_no_crossing_is_not_a_size():
    assert first_crossing(10**LOG_SIZES, np.full(5, 0.2), 0.5) is None
    assert stays_above(10**LOG_SIZES, np.array([0.6, 0.6, 0.6, 0.6, 0.2]), 0.5) is None
