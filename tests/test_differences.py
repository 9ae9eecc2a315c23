"""What errors several curves share, and what follows for the variance of thresholds and their ratios."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_thresholds import ITEMS, SIZES, answer, frame, hill, study, with_outcomes

from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import from_frame
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.spread import drawn_variance, spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, differences
from capacity_analysis.thresholds.estimators import estimate_curve, hill_ratio
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.shared_draws import shared_draw_covariance

LOG_SIZES = np.arange(0.0, 6.0)
ANSWERS = np.full(6, 1000.0)
PROTOCOL = {"protocol": "T1-k1-n26-s0"}


def runs(n, seeds, alike, rng, deviation=0.01, gain=0.4):
    """Accuracies of two equal curves, N × K × S each; runs of a seed have the correlation `alike`."""
    curve = 0.5 + gain / (1 + 10.0 ** (2.5 - LOG_SIZES))
    common = math.sqrt(alike) * rng.normal(size=(n, 1, seeds))
    return [
        curve[:, None] + deviation * (common + math.sqrt(1 - alike) * rng.normal(size=(n, 6, seeds))) for _ in range(2)
    ]


def stacked(accuracies, seeds, aim):
    spreads = [spread_of_seeds(a, ANSWERS) for a in accuracies]
    return differences([LOG_SIZES] * 2, spreads, [range(seeds)] * 2, aim)


@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_the_covariance_is_that_of_means_whose_seeds_are_alike(alike):
    rng = np.random.default_rng(0)
    found = stacked(runs(4000, 5, alike, rng), 5, Aim(np.full(4000, 0.8)))
    expected = np.cov(found.z.T)
    estimated = found.covariance.mean(0)
    off = ~np.eye(12, dtype=bool)
    assert np.diag(estimated).mean() == pytest.approx(np.diag(expected).mean(), rel=0.03)
    assert estimated[off].mean() == pytest.approx(expected[off].mean(), abs=1.5e-6)  # of a variance of 2e-5


def test_a_target_that_moves_with_the_ceiling_takes_its_error_along():
    rng = np.random.default_rng(0)
    accuracies = runs(12_000, 5, 0.0, rng, gain=0.05)  # so flat that all sizes spread alike by every estimate
    top = accuracies[1].mean(2)[:, -1]
    found = stacked(accuracies, 5, Aim(0.5 + 0.8 * (top - 0.5), 0.8, 11))
    assert np.cov(found.z.T) == pytest.approx(found.covariance.mean(0), abs=1.5e-6)


def test_the_variance_of_a_sum_holds_what_the_seeds_show():
    rng = np.random.default_rng(0)
    # Spreads of two curves differ by chance, so a difference of levels looks larger: by a tenth with five seeds.
    found = stacked(runs(4000, 10, 0.6, rng), 10, Aim(np.full(4000, 0.8)))
    for weights in (np.ones(12), np.repeat([1.0, -1.0], 6), np.eye(12)[3]):
        variance, df, _ = found.variance(np.tile(weights, (4000, 1)))
        assert variance.mean() == pytest.approx((found.z @ weights).var(), rel=0.1)
        assert (df >= 9).all()


def test_curves_without_known_seeds_are_independent():
    rng = np.random.default_rng(0)
    spreads = [spread_of_seeds(a, ANSWERS) for a in runs(50, 5, 0.9, rng)]
    found = differences([LOG_SIZES] * 2, spreads, [None, None], Aim(np.full(50, 0.8)))
    assert not found.covariance[:, :6, 6:].any()
    assert found.seeds.runs.shape == (50, 12, 10)
    assert found.seeds.df == 8


def test_seeds_that_both_arms_share_narrow_the_ratio_and_intervals_cover():
    rng = np.random.default_rng(0)
    target = np.full(300, 0.8)
    limits = limits_around(target, None, None)
    widths = {}
    for alike in (0.0, 0.8):
        found = stacked(runs(300, 5, alike, rng), 5, Aim(target))
        first, second = (estimate_curve(found.take(i), limits) for i in (0, 1))
        ratio = hill_ratio(found, limits, first, second)
        assert np.mean((ratio.low <= 0) & (ratio.high >= 0)) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)
        widths[alike] = np.median(ratio.high - ratio.low)
    assert widths[0.8] < 0.6 * widths[0.0]


def test_the_ratio_of_smooth_curves_has_the_width_of_the_delta_method():
    curve = 0.5 + 0.4 / (1 + 10.0 ** (2.5 - LOG_SIZES))
    spread = spread_of_seeds(curve[None, :, None], np.full(6, 1e6))
    one = differences([LOG_SIZES] * 2, [spread, spread], [None, None], Aim(np.array([0.8])))
    limits = limits_around(np.array([0.8]), None, None)
    first, second = (estimate_curve(one.take(i), limits) for i in (0, 1))
    found = hill_ratio(one, limits, first, second)
    weights = np.concatenate([first.fits.influence, -second.fits.influence], axis=1)[0]
    half = 1.96 * math.sqrt(weights @ one.covariance[0] @ weights)
    assert (found.low[0], found.estimate[0], found.high[0]) == pytest.approx((-half, 0.0, half), abs=0.04 * half + 4e-3)


def test_the_bound_for_a_shared_draw_is_above_runs_that_answer_alike_and_runs_that_do_not():
    means, n = np.array([[0.45, 0.6, 0.8, 0.9]]), np.full(4, 1000.0)
    bound = shared_draw_covariance(means, np.array([0.4]), n, 0.8, 3)[0]
    p = np.append(means[0], 0.4)
    moved = np.concatenate([np.eye(4), np.full((4, 1), -0.2)], axis=1) - 0.8 * np.eye(5)[3]
    alike = (np.minimum.outer(p, p) - np.outer(p, p)) / 1000
    for covariance in (alike, np.diag(np.diag(alike)), 0.5 * alike + 0.5 * np.diag(np.diag(alike))):
        assert np.linalg.eigvalsh(bound - moved @ covariance @ moved.T).min() > -1e-12


def test_items_from_which_too_much_was_taken_out_leave_a_covariance():
    accuracies = runs(2, 3, 0.6, np.random.default_rng(0))
    spreads = [spread_of_seeds(a, ANSWERS) for a in accuracies]
    aim, seeds = Aim(np.full(2, 0.8)), [range(3)] * 2
    alike = np.ones((12, 12))
    items = 1e-4 * np.stack([alike, alike - 3 * np.eye(12)])  # the second is the covariance of nothing
    found = differences([LOG_SIZES] * 2, spreads, seeds, aim, items)
    as_given = differences([LOG_SIZES] * 2, spreads, seeds, aim).covariance + items
    assert np.linalg.eigvalsh(as_given)[1, 0] < -1e-5
    assert found.covariance[0] == pytest.approx(as_given[0], abs=1e-12)
    assert np.linalg.eigvalsh(found.covariance)[:, 0].min() > 1e-6
    # No contrast has become more certain.
    assert np.linalg.eigvalsh(found.covariance[1] - as_given[1])[0] > -1e-12


def test_what_the_answers_follow_from_is_read_off_the_protocol():
    words = {
        "T1-k1-n26-s0": "common", "T1-k1-n26-s0-by-seed": "seed", "T0-k1-n26-s0": "none", "greedy, 8 shots": None,
    }  # fmt: skip
    for word, drawn in words.items():
        (design,) = designs(from_frame(frame({"sft": hill}, protocol=word), "t"), Selection())
        assert design.draws == drawn


def test_a_single_base_run_has_an_error_unless_its_answers_are_greedy():
    def of_base(noise=0, **columns):
        (design,) = designs(from_frame(frame({"sft": hill}, noise=noise, **columns), "t"), Selection())
        return gather(design, Question(gain=0.5), np.random.default_rng(0)).target.of_base

    assert of_base(protocol="T1-k1-n26-s0-by-seed") == pytest.approx(0.25 * 0.5 * 0.5 / ITEMS)
    assert of_base(protocol="T0-k1-n26-s0") == 0
    # Trained runs that scatter less than answers drawn one by one bound the error of the base.
    assert of_base(noise=5, protocol="T1-k1-n26-s0-by-seed") < 0.25 * 0.5 * 0.5 / ITEMS


def test_the_spread_of_seeds_bounds_the_variance_of_drawn_answers():
    rng = np.random.default_rng(0)
    p = np.linspace(0.3, 0.9, 6)
    drawn = rng.binomial(1000, p[:, None], size=(300, 6, 5)) / 1000
    assert drawn_variance([spread_of_seeds(drawn, ANSWERS)]).mean() == pytest.approx(1 / 1000, rel=0.02)
    assert np.isinf(drawn_variance([spread_of_seeds(drawn[:, :, :1], ANSWERS)])).all()


def test_one_draw_for_all_runs_widens_thresholds_and_says_so():
    def found(points):
        one = answer(study(points, target=0.8))
        return math.log10(one.threshold.high / one.threshold.low), one.interval

    table = frame({"sft": hill}, noise=5, seeds=5)
    own, label = found(table.assign(protocol="T1-k1-n26-s0-by-seed"))
    shared, bound = found(table.assign(protocol="T1-k1-n26-s0"))
    assert label == "95 %, fresh seeds on these items, variance pooled over sizes"
    assert "a bound for what items and draws share" in bound
    assert shared > 1.5 * own
    points = with_outcomes(3, 400, SIZES, np.random.default_rng(2))
    points = replace(points, frame=points.frame.assign(protocol="T1-k1-n26-s0"))
    assert "answers, one draw for all runs" in found(points)[1]


def test_more_seeds_do_not_average_a_common_draw_out():
    def width(seeds, protocol):
        table = frame({"sft": hill}, noise=5, seeds=seeds, protocol=protocol)
        found = answer(study(table, target=0.8)).threshold
        return math.log10(found.high / found.low)

    assert width(40, "T1-k1-n26-s0") > 0.8 * width(5, "T1-k1-n26-s0")
    assert width(40, "T1-k1-n26-s0-by-seed") < 0.5 * width(5, "T1-k1-n26-s0-by-seed")


def test_ends_that_fall_are_left_out_and_the_curve_around_the_target_answers():
    sizes = [*SIZES, 1000000]

    def dips(size):
        return hill(size, midpoint=3000.0) - (0.1 if size == 10 else 0.0)

    def overshoots(size):
        return hill(size, midpoint=30.0) - (0.06 if size == sizes[-1] else 0.0)

    result = study(frame({"sft": dips, "grpo": overshoots}, noise=5, seeds=5, sizes=sizes), target=0.75)
    sft, grpo = answer(result), answer(result, "grpo")
    evidence = result.evidence[0]
    used = {curve.label: evidence.used(place).tolist() for place, curve in enumerate(evidence.curves)}
    assert (sft.estimator, grpo.estimator) == ("hill", "hill")
    assert sft.threshold.estimate == pytest.approx(3000 * (0.25 / 0.15), rel=0.15)
    assert grpo.threshold.estimate == pytest.approx(30 * (0.25 / 0.15), rel=0.15)
    assert used == {"sft": [False] * 2 + [True] * 5, "grpo": [True] * 6 + [False]}
    assert sft.threshold.high / sft.threshold.low < 3
    assert sft.left_out == (1.0, 10.0)
    assert any("sft on m: the Hill curve leaves out 1, 10," in said for said in result.unsupported)


def test_a_plateau_is_no_fall_and_is_answered_without_a_curve():
    def two_steps(size):
        return 0.5 + 0.2 * (size >= 100) + 0.2 * (size >= 100000)

    found = answer(study(frame({"sft": two_steps}, noise=5, seeds=5, sizes=[*SIZES, 1000000]), target=0.8))
    assert found.estimator == "monotone"
    assert (found.threshold.low, found.threshold.high) == (10000, 100000)


def test_a_curve_that_falls_to_its_last_size_has_estimates() -> None:
    """Its lowest mean is the last size, and no size is left after it."""
    accuracy = (0.7 - 0.02 * LOG_SIZES**2)[None, :, None] + np.array([-0.001, 0.0, 0.001])
    data = differences([LOG_SIZES], [spread_of_seeds(accuracy, ANSWERS)], [range(3)], Aim(np.array([0.9])))
    found = estimate_curve(data, limits_around(np.array([0.9]), None, None))
    assert found.fit_p[0] < 0.05
    assert (found.monotone.low[0], found.monotone.high[0]) == (LOG_SIZES[-1], math.inf)
