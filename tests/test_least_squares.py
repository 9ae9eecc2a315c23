import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from capacity_analysis.statistics import least_squares as module
from capacity_analysis.statistics.least_squares import least_squares


def linear(rng, n):
    """N linear problems of 6 residuals and 3 parameters: their matrices, their data and how they are asked."""
    matrices, data = rng.normal(size=(n, 6, 3)), rng.normal(size=(n, 6))

    def residuals_of(rows):
        return lambda theta: ((matrices[rows] @ theta[:, :, None])[:, :, 0] - data[rows], matrices[rows])

    return matrices, data, residuals_of


@unhurried
@given(st.integers(0, 10_000))
def test_linear_problems_in_a_box_agree_with_scipy(seed):
    rng = np.random.default_rng(seed)
    matrices, data, residuals_of = linear(rng, 4)
    low, high = np.full((4, 3), -0.2), np.full((4, 3), 0.3)
    theta, cost = least_squares([np.zeros((4, 3))], (low, high), residuals_of, 200, 1e-13)
    for i in range(4):
        wanted = optimize.lsq_linear(matrices[i], data[i], (low[i], high[i]), tol=1e-12)
        assert cost[i] == pytest.approx(2 * wanted.cost, rel=1e-6)
        assert theta[i] == pytest.approx(wanted.x, abs=1e-3)


def test_equal_ends_of_the_box_fix_a_parameter():
    rng = np.random.default_rng(0)
    matrices, data, residuals_of = linear(rng, 1)
    low, high = np.array([[-9.0, 0.5, -9.0]]), np.array([[9.0, 0.5, 9.0]])
    theta, _ = least_squares([np.zeros((1, 3))], (low, high), residuals_of, 200, 1e-13)
    rest, *_ = np.linalg.lstsq(matrices[0][:, [0, 2]], data[0] - 0.5 * matrices[0][:, 1])
    assert theta[0] == pytest.approx([rest[0], 0.5, rest[1]], abs=1e-6)


def test_problems_side_by_side_and_one_start_at_a_time_have_the_same_minima(monkeypatch):
    _, _, residuals_of = linear(np.random.default_rng(1), 5)
    box = np.full((5, 3), -9.0), np.full((5, 3), 9.0)
    starts = [np.full((5, 3), value) for value in (-2.0, 0.0, 2.0)]
    together = least_squares(starts, box, residuals_of, 200, 1e-13)
    monkeypatch.setattr(module, "SIDE_BY_SIDE", 5)
    apart = least_squares(starts, box, residuals_of, 200, 1e-13)
    assert together[0] == pytest.approx(apart[0], abs=1e-6)
    assert together[1] == pytest.approx(apart[1], rel=1e-9)
