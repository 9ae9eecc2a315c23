import math

import numpy as np
import pytest
import statsmodels.api as sm
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from capacity.errors import DataError
from capacity_analysis.data.absent import Absent
from capacity_analysis.scaling.curves import ThresholdOnModel, scaling_report, to_json
from capacity_analysis.scaling.fit import ModelThreshold, ScalingFit, fit_scaling, interval_regression

INF = math.inf
LOW = np.array([1, 8, 8, 7, 7, 17, 37, 46, 46, 45.0])
HIGH = np.array([7, 8, 10, 16, 14, INF, 44, INF, INF, INF])


def exact(*pairs: tuple[float, float]) -> list[ModelThreshold]:
    return [ModelThreshold(f"m{n:g}", n, t, t) for n, t in pairs]


def fitted(thresholds: list[ModelThreshold]) -> ScalingFit:
    fit = fit_scaling(thresholds)
    assert isinstance(fit, ScalingFit)
    return fit


def test_interval_censored_log_normal_of_the_literature():
    """Intervals with one exact time, 8, whose density is that of the time itself: hence the Jacobian −ln 8."""
    fit = interval_regression(np.ones((10, 1)), np.log(LOW), np.log(HIGH))
    assert fit.coefficients[0] == pytest.approx(3.2023, abs=5e-5)
    assert fit.sigma == pytest.approx(1.3075, abs=5e-5)
    assert math.exp(fit.coefficients[0]) == pytest.approx(24.589, abs=5e-4)
    assert fit.log_likelihood - math.log(8) == pytest.approx(-18.7864, abs=5e-5)


def test_interval_censored_fit_against_scipy():
    data = stats.CensoredData(
        uncensored=[8.0],
        right=[17.0, 46, 46, 45],
        interval=[[1.0, 7], [8, 10], [7, 16], [7, 14], [37, 44]],
    )
    shape, _, scale = stats.lognorm.fit(data, floc=0)
    fit = interval_regression(np.ones((10, 1)), np.log(LOW), np.log(HIGH))
    assert fit.sigma == pytest.approx(shape, rel=1e-3)
    assert math.exp(fit.coefficients[0]) == pytest.approx(scale, rel=1e-3)


def test_regression_with_families_against_lifelines():
    """LogNormalAFTFitter.fit_interval_censoring of lifelines 0.30.3 on the same eight intervals."""
    sizes = np.repeat([2e5, 9e5, 3e6, 1e7], 2)
    low = np.array([84, 13, 28, 112, 4, 28, 4, 13.0])
    high = np.array([112, 28, 84, 1792, 13, 84, 13, INF])
    design = np.column_stack([np.ones(8), np.log10(sizes), np.tile([0.0, 1.0], 4)])
    fit = interval_regression(design, np.log(low), np.log(high))
    assert fit.coefficients == pytest.approx([7.752002, -0.747426, 0.834570], abs=3e-5)
    assert math.log(fit.sigma) == pytest.approx(-0.076104, abs=3e-5)
    assert fit.log_likelihood == pytest.approx(-10.557619, abs=1e-6)
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx([3.623697, 0.583190, 0.740219], abs=2e-5)


def test_exact_thresholds_are_least_squares_with_students_band():
    rng = np.random.default_rng(3)
    n = np.array([1e6, 5e6, 2e7, 1e8, 6e8])
    t = 10 ** (6 - 0.6 * np.log10(n) + 0.2 * rng.standard_normal(5))
    fit = fitted(exact(*zip(n, t, strict=True)))
    ols = sm.OLS(np.log10(t), sm.add_constant(np.log10(n))).fit()
    assert fit.slope.estimate == pytest.approx(ols.params[1], rel=1e-10)
    assert (fit.slope.low, fit.slope.high) == pytest.approx(tuple(ols.conf_int()[1]), rel=1e-10)
    band = ols.get_prediction([[1.0, math.log10(3e9)]]).conf_int(obs=True)[0]
    found = fit.predict(3e9)
    assert (math.log10(found.low), math.log10(found.high)) == pytest.approx(tuple(band), rel=1e-9)
    assert found.far
    assert not fit.predict(1.1e9).far


def test_prediction_half_width_is_the_formula():
    fit = fitted(exact((1e6, 100), (1e7, 30), (1e8, 20)))
    x = np.array([6.0, 7, 8])
    half = math.log10(fit.predict(1e9).high / fit.predict(1e9).estimate)
    assert fit.sigma is not None
    expected = stats.t.ppf(0.975, 1) * fit.sigma * math.sqrt(1 + 1 / 3 + (9 - x.mean()) ** 2 / ((x - 7) ** 2).sum())
    assert half == pytest.approx(expected, rel=1e-10)


def test_three_sizes_have_one_degree_of_freedom():
    fit = fitted(exact((1e6, 100), (1e7, 30), (1e8, 20)))
    assert fit.df == 1
    assert fit.t == pytest.approx(12.706, abs=5e-4)
    (result,) = scaling_report(
        [ThresholdOnModel(f"m{n}", "grpo", n, t, t) for n, t in ((1e6, 100), (1e7, 30), (1e8, 20))]
    )
    assert any("1 degree of freedom" in remark and "12.7" in remark for remark in result.remarks)


def test_two_sizes_give_a_line_and_open_intervals():
    fit = fitted(exact((1e6, 100), (1e7, 10)))
    assert fit.slope.estimate == pytest.approx(-1)
    assert (fit.slope.low, fit.slope.high) == (-INF, INF)
    prediction = fit.predict(1e8)
    assert (prediction.low, prediction.high) == (0, INF)


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        ([], "one model size"),
        (exact((1e6, 100), (1e6, 200)), "one model size"),
        ([ModelThreshold("a", 1e6, 10, 20), ModelThreshold("b", 1e7, 30, INF)], "only 1 of 2"),
        ([ModelThreshold("a", 1e6, 10, 20, "x"), ModelThreshold("b", 1e7, 5, 9, "y")], "family"),
    ],
)
def test_what_cannot_be_estimated_says_why(thresholds, reason):
    fit = fit_scaling(thresholds)
    assert isinstance(fit, Absent)
    assert reason in fit.reason


def test_a_line_through_all_intervals_gives_a_range_and_no_confidence():
    thresholds = [
        ModelThreshold("a", 1e6, 100, 1000),
        ModelThreshold("b", 1e7, 30, 100),
        ModelThreshold("c", 1e8, 1, 20),
    ]
    fit = fitted(thresholds)
    assert fit.method == "lines through all intervals"
    assert fit.slope.estimate is None
    assert fit.sigma is None
    # Steepest: from (6, 3) to (8, 0), which passes (7, 1.5), inside. Flattest: from (6, 2) to (8, log10 20), inside.
    assert (fit.slope.low, fit.slope.high) == pytest.approx((-1.5, (math.log10(20) - 2) / 2))
    prediction = fit.predict(1e9)
    assert prediction.estimate is None
    assert prediction.low < prediction.high


def test_narrow_brackets_are_almost_least_squares():
    """Brackets of one percent give what exact numbers give."""
    sizes, middle = [1e6, 3e6, 1e7, 3e7, 1e8], [200.0, 20, 80, 5, 20]
    narrow = [ModelThreshold(f"m{n}", n, t / 1.01, t * 1.01) for n, t in zip(sizes, middle, strict=True)]
    exact_fit = fitted(exact(*zip(sizes, middle, strict=True)))
    interval_fit = fitted(narrow)
    assert interval_fit.slope.estimate == pytest.approx(exact_fit.slope.estimate, abs=1e-3)
    assert interval_fit.slope.low == pytest.approx(exact_fit.slope.low, abs=0.01)
    assert interval_fit.sigma == pytest.approx(exact_fit.sigma, rel=0.01)


def test_family_effect_is_a_parallel_offset():
    a = [ModelThreshold(f"a{n}", n, t, t, "a") for n, t in ((1e6, 100), (1e7, 12), (1e8, 1))]
    b = [ModelThreshold(f"b{n}", n, 10 * t, 10 * t, "b") for n, t in ((1e6, 100), (1e7, 12), (1e8, 1))]
    fit = fitted([*a, *b])
    assert fit.families == ("a", "b")
    assert fit.effects[0].estimate == pytest.approx(1.0)
    assert fit.predict(1e9, "b").estimate == pytest.approx(10 * fit.predict(1e9, "a").estimate)
    with pytest.raises(DataError, match="no model of family 'c'"):
        fit.predict(1e9, "c")


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e4))
@unhurried
def test_rescaling_moves_the_line_and_nothing_else(threshold_unit, model_unit):
    pairs = [(1e6, 90.0), (1e7, 40), (1e8, 11), (1e9, 9)]
    fit = fitted(exact(*pairs))
    scaled = fitted(exact(*((n * model_unit, t * threshold_unit) for n, t in pairs)))
    assert scaled.slope.estimate == pytest.approx(fit.slope.estimate, rel=1e-6)
    assert scaled.slope.low == pytest.approx(fit.slope.low, rel=1e-6)
    assert scaled.predict(3e9 * model_unit).high == pytest.approx(threshold_unit * fit.predict(3e9).high, rel=1e-6)


def test_coverage_of_the_slope():
    """95 % intervals of 5 models with brackets a factor of three wide hold the true slope in about 95 % of studies."""
    rng = np.random.default_rng(11)
    sizes = np.array([1e6, 3e6, 1e7, 3e7, 1e8])
    held = total = 0
    for _ in range(60):
        log_t = 5 - 0.5 * np.log10(sizes) + 0.5 * rng.standard_normal(5)
        low = 3 ** np.floor(log_t / math.log10(3))
        fit = fitted([ModelThreshold(f"{n}", n, a, 3 * a) for n, a in zip(sizes, low, strict=True)])
        held += fit.slope.low <= -0.5 <= fit.slope.high
        total += 1
    assert held / total >= 0.89  # 95 % less two standard errors


def test_report_keeps_methods_and_targets_apart_and_has_no_nan():
    curves = [
        ThresholdOnModel("a", "grpo", 1e6, 50, 100, "f", "accuracy 90 %"),
        ThresholdOnModel("b", "grpo", 1e7, 0, 4, "f", "accuracy 90 %"),
        ThresholdOnModel("c", "grpo", 1e8, 2, INF, "f", "accuracy 90 %"),
        ThresholdOnModel("a", "sft", 1e6, 50, 50, "f", "accuracy 90 %"),
        ThresholdOnModel("b", "sft", 1e7, 40, 40, "f", "accuracy 90 %"),
        ThresholdOnModel("c", "sft", 1e8, 10, 10, "f", "accuracy 90 %"),
        ThresholdOnModel("a", "sft", 1e6, 0, INF, "f", "80 % of the gain"),
    ]
    results = scaling_report(curves)
    assert [(r.curve, r.target) for r in results] == [
        ("grpo", "accuracy 90 %"), ("sft", "accuracy 90 %"), ("sft", "80 % of the gain"),
    ]  # fmt: skip
    assert isinstance(results[0].fit, Absent)
    assert isinstance(results[1].fit, ScalingFit)
    assert isinstance(results[2].fit, Absent)
    rows = to_json(results)
    assert "only 1 of 3" in rows[0]["reason"]
    far = [p["extrapolated"] for p in rows[1]["predictions"]]
    assert far == [False, False, False, False, True]


def test_a_threshold_that_is_no_interval_is_refused():
    with pytest.raises(DataError, match="not an interval"):
        ModelThreshold("a", 1e6, 10, 5)
    with pytest.raises(DataError, match="number of parameters is not known"):
        ModelThreshold("a", math.nan, 5, 10)
