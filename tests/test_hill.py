"""Hill fits against drc's published numbers, and profile intervals against what they must satisfy.

Data: `ryegrass` (Inderjit, Streibig & Olofsdotter, Physiologia Plantarum 114, 2002, 422–428) and `S.alba`, dry weight
of Sinapis alba under bentazone and glyphosate (Christensen, Teicher & Streibig, Pest Management Science 59, 2003,
1303–1310), both as distributed with R's package drc (Ritz et al., PLoS ONE 2015), whose LL.4 and LL.3 fits the
expected numbers are.
"""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from capacity.errors import DataError
from capacity_analysis.statistics.hill import Hill, curve_and_derivatives, fit_hill, fit_parallel
from capacity_analysis.statistics.hill_profile import crossings, fit_curves, limits_around

RYEGRASS = {
    0: [7.58, 8.0, 8.3285714, 7.25, 7.375, 7.9625],
    0.94: [8.3555556, 6.9142857, 7.75],
    1.88: [6.8714286, 6.45, 5.9222222],
    3.75: [1.925, 2.8857143, 4.2333333],
    7.5: [1.1875, 0.8571429, 1.0571429],
    15: [0.6875, 0.525, 0.825],
    30: [0.25, 0.22, 0.44],
}
BENTAZONE = {
    0: [4.1, 3.4, 2.6, 3.5, 4.3, 4.2, 4.1, 4.5], 10: [3.5, 3.8, 3.9, 3.7], 20: [3.2, 3.5, 3.0, 4.0],
    40: [1.1, 1.4, 1.4, 0.9], 80: [0.9, 0.6, 0.7, 0.8], 160: [0.7, 0.7, 0.5, 0.6], 320: [0.8, 0.5, 0.7, 0.8],
    640: [0.6, 0.7, 0.6, 0.8],
}  # fmt: skip
GLYPHOSATE = {
    0: [4.7, 4.6, 4.1, 4.4, 3.2, 3.0, 3.8, 3.9], 10: [3.8, 3.8, 3.8, 3.3], 20: [4.1, 3.5, 4.1, 3.2],
    40: [2.8, 3.0, 3.7, 3.4], 80: [1.8, 1.6, 2.3, 1.7], 160: [1.1, 1.3, 1.0, 1.2], 320: [0.9, 0.9, 0.9, 0.9],
}  # fmt: skip


def flat(table):
    """Doses and values, one an observation. Dose 0 has no logarithm: it stands at a dose without any effect."""
    doses = [max(dose, 1e-9) for dose, values in table.items() for _ in values]
    return doses, [value for values in table.values() for value in values]


def effective_dose(fit, share, confidence=0.95):
    """The dose at a share of the curve's own way, with its delta interval: drc's `ED(…, interval = "delta")`."""
    logit, h = math.log(share / (1 - share)), fit.curve.slope
    dose = fit.curve.midpoint * math.exp(logit / h)
    gradient = dose * np.array([0.0, 0.0, math.log(10), -logit / h])
    half = stats.t.ppf(0.5 + confidence / 2, fit.df) * math.sqrt(gradient @ fit.covariance @ gradient)
    return dose, dose - half, dose + half


def midpoint_variance(fit):
    return fit.covariance[2, 2] * (math.log(10) * fit.curve.midpoint) ** 2


def test_ryegrass_gives_the_doses_of_drc():
    fit = fit_hill(*flat(RYEGRASS))
    middle, low, high = effective_dose(fit, 0.5)
    assert middle == pytest.approx(3.05795, abs=1e-5)
    assert (low, high) == (pytest.approx(2.67053, abs=1e-5), pytest.approx(3.44538, abs=1e-5))
    assert math.sqrt(midpoint_variance(fit)) == pytest.approx(0.18573, abs=1e-5)
    assert effective_dose(fit, 0.1)[0] == pytest.approx(1.46371, abs=1e-5)
    # drc's optimiser stops a little off the minimum: our sum of squares is no larger, and ED90 differs by 2e-6 of
    # itself.
    assert effective_dose(fit, 0.9)[0] == pytest.approx(6.38864, rel=3e-6)


def test_s_alba_gives_the_ratio_of_drc_by_delta_and_fieller():
    b, g = (fit_hill(*flat(table), upper=0.0) for table in (BENTAZONE, GLYPHOSATE))
    df = b.df + g.df
    scale = (b.sum_of_squares + g.sum_of_squares) / df  # drc's fits share one residual variance
    variances = [midpoint_variance(fit) * scale / (fit.sum_of_squares / fit.df) for fit in (b, g)]
    e = b.curve.midpoint, g.curve.midpoint
    ratio, t = e[0] / e[1], stats.t.ppf(0.975, df)
    assert ratio == pytest.approx(0.39269, abs=1e-5)
    error = ratio * math.sqrt(variances[0] / e[0] ** 2 + variances[1] / e[1] ** 2)
    assert (ratio - t * error, ratio + t * error) == (
        pytest.approx(0.26028, abs=1e-5),
        pytest.approx(0.52511, abs=1e-5),
    )
    k = t * t * variances[1] / e[1] ** 2
    half = t / (1 - k) / e[1] * math.sqrt(variances[0] + ratio**2 * variances[1] - k * variances[0])
    fieller = ratio / (1 - k) - half, ratio / (1 - k) + half
    assert fieller == (pytest.approx(0.28175, abs=1e-5), pytest.approx(0.56261, abs=1e-5))


@pytest.mark.parametrize("limits", [{}, {"lower": 0.5}, {"upper": 0.9}, {"lower": 0.5, "upper": 0.9}])
def test_a_curve_without_noise_is_found_and_fixed_limits_have_no_variance(limits):
    x = 10.0 ** np.arange(6)
    fit = fit_hill(x, Hill(0.5, 0.9, 100.0, 1.3).accuracy(x), np.full(6, 1e-4), **limits)
    assert fit.curve.theta == pytest.approx([0.5, 0.9, 2.0, math.log(1.3)], abs=1e-6)
    assert [v == 0 for v in np.diag(fit.covariance)] == ["lower" in limits, "upper" in limits, False, False]
    assert fit.df == 2 + len(limits)


@pytest.mark.parametrize("seed", range(20))
def test_scipy_finds_no_better_curve(seed):
    rng = np.random.default_rng(seed)
    x = np.geomspace(1, 1e5, 7)
    truth = Hill(rng.uniform(0.3, 0.6), rng.uniform(0.7, 1.0), 10 ** rng.uniform(0.5, 4.5), rng.uniform(0.5, 4))
    y = truth.accuracy(x) + rng.normal(0, 0.02, 7)

    def residuals(theta):
        return (curve_and_derivatives(theta[None], np.log10(x))[0][0] - y) / 0.02

    bounds = [-np.inf, -np.inf, -5, math.log(0.05)], [np.inf, np.inf, 10, math.log(50)]
    starts = ([y[0], y[-1], middle, slope] for middle in (1.0, 2.5, 4.0) for slope in (-0.5, 0.5, 1.5))
    wanted = min(2 * optimize.least_squares(residuals, s, bounds=bounds, x_scale="jac").cost for s in starts)
    assert fit_hill(x, y, np.full(7, 0.02**2)).sum_of_squares <= wanted * (1 + 1e-6)


def test_derivatives_are_those_of_the_curve():
    theta, x, step = np.array([[0.4, 0.9, 1.7, 0.6]]), np.linspace(0, 4, 7), 1e-6
    _, derivatives = curve_and_derivatives(theta, x)
    for i, move in enumerate(step * np.eye(4)):
        (up, _), (down, _) = (curve_and_derivatives(theta + sign * move, x) for sign in (1, -1))
        assert derivatives[0, :, i] == pytest.approx((up - down)[0] / (2 * step), abs=1e-8)


def test_parallel_fit_finds_the_shared_curve():
    x = 10.0 ** np.arange(6)
    arms = [(x, Hill(0.5, 0.9, e, 1.3).accuracy(x), np.full(6, 1e-4)) for e in (20.0, 700.0)]
    fitted, rest = fit_parallel(arms, [fit_hill(*arm) for arm in arms])
    assert rest == pytest.approx(0.0, abs=1e-6)
    assert [c.midpoint for c in fitted] == pytest.approx([20.0, 700.0], rel=1e-3)


def test_a_fit_that_cannot_be_made_says_why():
    with pytest.raises(DataError, match="4 free parameters"):
        fit_hill([1, 10, 100], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match="all values are equal"):
        fit_hill([1, 10, 100, 1000], [0.5] * 4)
    for variance in (0.0, math.nan):
        with pytest.raises(DataError, match="variance of a value"):
            fit_hill([1, 10, 100, 1000], [0.5, 0.6, 0.7, 0.8], [1e-4, 1e-4, 1e-4, variance])


LOG_SIZES = np.arange(6.0)


def intervals(curve, deviation, target=0.8, n=1, rng=None, critical=3.84):
    means = np.tile(curve.accuracy(10**LOG_SIZES), (n, 1))
    if rng is not None:
        means = means + deviation * rng.normal(size=means.shape)
    covariance = np.broadcast_to(np.eye(6) * deviation**2, (n, 6, 6))
    fits = fit_curves(LOG_SIZES, means - target, covariance, limits_around(np.full(n, target), None, None))
    return crossings(fits, np.full(n, critical))


def test_the_profile_agrees_with_the_delta_method_where_the_curve_is_smooth():
    curve, deviation = Hill(0.5, 0.9, 100.0, 1.0), 1e-3
    found = intervals(curve, deviation)
    means = curve.accuracy(10**LOG_SIZES)
    fit = fit_hill(10**LOG_SIZES, means, np.full(6, deviation**2))
    c, d, middle, log_slope = fit.curve.theta
    way, left, h = 0.8 - c, d - 0.8, math.exp(log_slope)
    assert found.size[0] == pytest.approx(middle + math.log10(way / left) / h, abs=1e-4)
    gradient = np.array([-1 / (h * way), -1 / (h * left), math.log(10), -math.log(way / left) / h]) / math.log(10)
    half = math.sqrt(3.84 * gradient @ fit.covariance @ gradient)
    assert found.high[0] - found.low[0] == pytest.approx(2 * half, rel=0.12)


def test_a_step_leaves_the_whole_gap_open():
    means = np.where(LOG_SIZES >= 3, 0.9, 0.5)[None]
    fits = fit_curves(LOG_SIZES, means - 0.8, np.eye(6)[None] * 1e-6, limits_around(np.array([0.8]), None, None))
    found = crossings(fits, np.array([3.84]))
    assert found.low[0] == pytest.approx(2.0, abs=0.05)
    assert found.high[0] == pytest.approx(3.0, abs=0.05)


def test_the_ratio_takes_each_arms_own_limits():
    arms = Hill(0.6, 0.9, 300.0, 1.0), Hill(0.6, 0.97, 30.0, 1.0)
    sft, grpo = (intervals(arm, 1e-3, target=0.85).size[0] for arm in arms)
    assert 10 ** (sft - grpo) == pytest.approx(24.0, rel=1e-3)


def test_a_curve_below_the_target_is_censored_and_only_bounded_below():
    found = intervals(Hill(0.5, 0.7, 100.0, 1.0), 0.005)
    assert found.size[0] == np.inf
    assert found.high[0] == np.inf
    assert found.low[0] == pytest.approx(5.0)


def test_more_data_narrow_the_interval():
    wide, narrow = (intervals(Hill(0.5, 0.9, 100.0, 1.0), s) for s in (0.01, 0.003))
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_profile_intervals_cover():
    found = intervals(Hill(0.5, 0.9, 100.0, 1.0), 0.01, n=400, rng=np.random.default_rng(0))
    truth = math.log10(300.0)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 400)
