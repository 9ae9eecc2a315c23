import bjontegaard as reference
import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import DataError
from capacity_analysis.statistics.bjontegaard import delta_rate, inverse_curve, isotonic, size_ratio

ANCHOR = ([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851])
TEST = ([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987])

curves = st.lists(
    st.tuples(st.floats(1, 1e6), st.floats(0.01, 0.99)),
    min_size=2,
    max_size=9,
    unique_by=lambda pair: round(pair[0], 3),
)


@pytest.mark.parametrize(
    ("interpolation", "percent"), [("cubic", -4.420463), ("pchip", -4.417485), ("akima", -4.425245)]
)
def test_published_rates(interpolation, percent):
    found = 100 * (delta_rate(*ANCHOR, *TEST, interpolation).ratio - 1)
    assert found == pytest.approx(percent, abs=5e-7)
    assert found == pytest.approx(reference.bd_rate(*ANCHOR, *TEST, method=interpolation), abs=1e-8)


@given(st.integers(0, 10_000))
@unhurried
def test_against_the_reference_package_on_rising_curves(seed):
    rng = np.random.default_rng(seed)
    rates = [np.sort(rng.uniform(10, 1000, 6)) for _ in range(2)]
    quality = [np.sort(rng.uniform(20, 40, 6)) for _ in range(2)]
    low, high = max(q[0] for q in quality), min(q[-1] for q in quality)
    if high - low < 1:
        return
    found = delta_rate(rates[0], quality[0], rates[1], quality[1])
    expected = reference.bd_rate(rates[0], quality[0], rates[1], quality[1], method="pchip", min_overlap=0)
    assert 100 * (found.ratio - 1) == pytest.approx(expected, rel=1e-7, abs=1e-7)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


@given(curves, st.floats(0.01, 100))
@unhurried
def test_rates_times_a_constant_give_that_constant(points, factor):
    sizes, accuracies = (np.array(column) for column in zip(*points, strict=True))
    try:
        found = delta_rate(sizes, accuracies, sizes * factor, accuracies)
    except DataError:
        order = np.argsort(sizes)
        level = isotonic(accuracies[order], np.ones(len(sizes)))
        assert level[0] == level[-1]
        return
    assert found.ratio == pytest.approx(factor, rel=1e-7)


@given(curves, curves)
@unhurried
def test_swapping_the_arms_inverts_the_ratio(one, other):
    (a, b), (c, d) = zip(*one, strict=True), zip(*other, strict=True)
    try:
        found = delta_rate(a, b, c, d)
    except DataError:
        with pytest.raises(DataError, match="share no range"):
            delta_rate(c, d, a, b)
        return
    assert delta_rate(c, d, a, b).ratio == pytest.approx(1 / found.ratio, rel=1e-9)


def test_isotonic_regression_of_the_literature():
    found = isotonic(np.array([1.5, 1, 4, 6, 5.7, 5, 7.8, 9, 7.5, 9.5, 9]), np.ones(11))
    expected = [1.25, 1.25, 4, *[16.7 / 3] * 3, 7.8, 8.25, 8.25, 9.25, 9.25]
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10_000))
@unhurried
def test_isotonic_against_scipy(seed):
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 5, 8)
    values = rng.standard_normal((3, 8))
    expected = [isotonic_regression(row, weights=weights).x for row in values]
    assert isotonic(values, weights) == pytest.approx(np.array(expected), abs=1e-12)


def test_a_plateau_is_a_jump_of_the_inverse():
    """Between accuracies .5 and .9 sizes go 1 → 10 up to .7, where the curve is level until 100, then 100 → 1000."""
    curve = inverse_curve([1, 10, 100, 1000], [0.5, 0.7, 0.7, 0.9])
    assert curve.integral(0.5, 0.7) == pytest.approx(0.2 * 0.5)
    assert curve.integral(0.7, 0.9) == pytest.approx(0.2 * 2.5)
    assert curve.integral(0.5, 0.9) == pytest.approx(0.2 * 3.0)


def test_curves_without_a_common_accuracy_have_no_ratio():
    assert size_ratio(inverse_curve([1, 10], [0.1, 0.3]), inverse_curve([1, 10], [0.3, 0.9])) is None
    flat = inverse_curve([1, 10, 100], [0.5, 0.5, 0.5])
    assert size_ratio(flat, inverse_curve([1, 10], [0.3, 0.9])) is None
    with pytest.raises(DataError, match="share no range"):
        delta_rate([1, 10], [0.1, 0.3], [1, 10], [0.4, 0.9])


@pytest.mark.parametrize("points", [([], []), ([2, 1], [0.1, 0.2]), ([1, 2], [0.2, 0.1])])
def test_what_cannot_be_inverted_is_refused(points):
    with pytest.raises(ValueError, match="rising sizes"):
        inverse_curve(*points)
