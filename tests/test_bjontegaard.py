import bjontegaard as reference
import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from capacity_analysis.statistics.bjontegaard import inverse_curves, size_ratios
from capacity_analysis.statistics.monotone import isotonic

ANCHOR = ([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851])
TEST = ([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987])

curves = st.lists(
    st.tuples(st.floats(1, 1e6), st.floats(0.01, 0.99)),
    min_size=2,
    max_size=9,
    unique_by=lambda pair: round(pair[0], 3),
)


def delta_rate(anchor_sizes, anchor_accuracies, test_sizes, test_accuracies):
    """The size ratio of two curves whose points come in any order, each made monotone first; None if there is none."""
    both = []
    for sizes, accuracies in ((test_sizes, test_accuracies), (anchor_sizes, anchor_accuracies)):
        order = np.argsort(sizes)
        both.append(inverse_curves(np.array(sizes)[order], isotonic(np.array(accuracies)[order])))
    found = size_ratios(*both)
    return None if np.isnan(found.ratio) else found


def test_published_rate():
    found = 100 * (delta_rate(*ANCHOR, *TEST).ratio - 1)
    assert found == pytest.approx(-4.417485, abs=5e-7)
    assert found == pytest.approx(reference.bd_rate(*ANCHOR, *TEST, method="pchip"), abs=1e-8)


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
    found = delta_rate(sizes, accuracies, sizes * factor, accuracies)
    if found is None:
        level = isotonic(accuracies[np.argsort(sizes)])
        assert level[0] == level[-1]
    else:
        assert found.ratio == pytest.approx(factor, rel=1e-7)


@given(curves, curves)
@unhurried
def test_swapping_the_arms_inverts_the_ratio(one, other):
    (a, b), (c, d) = zip(*one, strict=True), zip(*other, strict=True)
    found, swapped = delta_rate(a, b, c, d), delta_rate(c, d, a, b)
    if found is None:
        assert swapped is None
    else:
        assert swapped.ratio == pytest.approx(1 / found.ratio, rel=1e-9)


def test_a_plateau_is_a_jump_of_the_inverse():
    """Between accuracies .5 and .9 sizes go 1 → 10 up to .7, where the curve is level until 100, then 100 → 1000."""
    curve = inverse_curves([1, 10, 100, 1000], [0.5, 0.7, 0.7, 0.9])
    assert curve.integral(0.5, 0.7) == pytest.approx(0.2 * 0.5)
    assert curve.integral(0.7, 0.9) == pytest.approx(0.2 * 2.5)
    assert curve.integral(0.5, 0.9) == pytest.approx(0.2 * 3.0)


@given(st.integers(0, 10_000))
@unhurried
def test_all_replicates_at_once_agree_with_scipy_curve_by_curve(seed):
    """Rounded accuracies are level here and there, so the inverse jumps."""
    rng = np.random.default_rng(seed)
    sizes = np.cumsum(rng.uniform(1, 100, 7))
    rows = np.sort(rng.integers(1, 9, (20, 7)) / 10, axis=1)
    found = inverse_curves(sizes, rows).integral(rows[:, 0], rows[:, -1])
    assert found.tolist() == pytest.approx([area_by_scipy(np.log10(sizes), row) for row in rows], abs=1e-12)


def area_by_scipy(log_sizes, accuracies):
    """The integral of log10 size over all accuracies: PCHIP between each two jumps."""
    total = 0.0
    for level in np.split(np.arange(len(accuracies)), np.flatnonzero(np.diff(accuracies) == 0) + 1):
        if len(level) > 1:
            total += float(
                PchipInterpolator(accuracies[level], log_sizes[level]).integrate(*accuracies[level][[0, -1]])
            )
    return total


def test_curves_without_a_common_accuracy_have_no_ratio():
    upper = inverse_curves([1, 10], [0.3, 0.9])
    for other in (inverse_curves([1, 10], [0.1, 0.3]), inverse_curves([1, 10, 100], [0.5, 0.5, 0.5])):
        found = size_ratios(other, upper)
        assert np.isnan([found.ratio, found.low, found.high]).all()
    assert delta_rate([1, 10], [0.1, 0.3], [1, 10], [0.4, 0.9]) is None


@pytest.mark.parametrize("points", [([], []), ([2, 1], [0.1, 0.2]), ([1, 2], [0.2, 0.1])])
def test_what_cannot_be_inverted_is_refused(points):
    with pytest.raises(ValueError, match="rising sizes"):
        inverse_curves(*points)
