"""Seeds that agree to the last answer: their accuracies are rounded to whole answers alike."""

import math

import numpy as np
import pandas as pd
import pytest

from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import from_frame
from capacity_analysis.statistics.hill import Hill
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.spread import spread_of_seeds
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.differences import Aim, differences
from capacity_analysis.thresholds.estimators import estimate_curve
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.null_calibration import null_calibration
from capacity_analysis.thresholds.question import Question

ITEMS, TARGET, STUDIES = 1000, 0.7, 600
LOG_SIZES = np.arange(7.0)
ERROR = math.sqrt(0.05 * 0.95 / STUDIES)


def studies(seeds, scatter, dent=0.0):
    """Estimates of Hill curves whose runs answer a whole number of items right, and the true thresholds.

    Args:
        seeds: the runs of each size.
        scatter: the standard deviation between seeds, in answers.
        dent: the answers by which the middle size is off the curve.
    """
    rng = np.random.default_rng(0)
    middle = rng.uniform(2.5, 3.5, (STUDIES, 1))
    lower, upper = rng.uniform(0.28, 0.32, (STUDIES, 1)), rng.uniform(0.78, 0.82, (STUDIES, 1))
    curve = lower + (upper - lower) / (1 + 10 ** (middle - LOG_SIZES)) + dent / ITEMS * (LOG_SIZES == 3)
    runs = curve[:, :, None] + scatter / ITEMS * rng.normal(size=(STUDIES, len(LOG_SIZES), seeds))
    spread = spread_of_seeds(np.rint(runs * ITEMS) / ITEMS, np.full(len(LOG_SIZES), float(ITEMS)))
    target = np.full(STUDIES, TARGET)
    found = estimate_curve(differences([LOG_SIZES], [spread], [None], Aim(target)), limits_around(target, None, None))
    return found, (middle + np.log10((TARGET - lower) / (upper - TARGET)))[:, 0]


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("scatter", [0.0, 0.05, 0.15, 2.0])
def test_a_true_hill_curve_is_believed_and_its_interval_covers(seeds, scatter):
    found, truth = studies(seeds, scatter)
    assert found.hill is not None
    assert np.mean(found.fit_p < 0.05) <= 0.05 + 3 * ERROR
    assert np.mean((found.hill.low <= truth) & (truth <= found.hill.high)) >= 0.95 - 3 * ERROR


def test_a_curve_that_is_off_by_four_answers_is_not_believed():
    found, _ = studies(3, 0.0, dent=4.0)
    assert np.mean(found.fit_p < 0.05) > 0.9


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0])
def test_the_variance_of_a_mean_is_that_of_rounded_seeds(seeds, scatter):
    rng = np.random.default_rng(0)
    truth = rng.uniform(400, 600, (1, 20_000))
    rounded = np.rint(truth[:, :, None] + scatter * rng.normal(size=(1, 20_000, seeds)))
    spread = spread_of_seeds(rounded / ITEMS, np.full(20_000, float(ITEMS)))
    wanted = ((rounded.mean(2) - truth) ** 2).mean() / ITEMS**2
    # The approximation is within 0.0016 h², and 20,000 sizes tell the variance to about 1 %.
    assert abs(spread.variance.mean() - wanted) <= 0.0016 / ITEMS**2 + 0.03 * wanted


def test_more_seeds_that_agree_tell_no_more():
    one, many = (spread_of_seeds(np.full((1, 4, seeds), 0.8), np.full(4, 100.0)) for seeds in (2, 50))
    assert one.variance == pytest.approx(0.01**2 / 12)
    assert many.variance == pytest.approx(0.01**2 / 12)
    assert np.isinf(one.df).all()


def study(e):
    """The evidence of two methods under three seeds that agree, with midpoints `e`."""
    rows = [
        {"model": "m", "method": method, "trained_parameters": size, "seed": seed, "n_items": ITEMS,
         "n_correct": round(ITEMS * float(Hill(0.3, 0.8, middle, 1.0).accuracy(size)))}
        for method, middle in zip(("sft", "grpo"), e, strict=True)
        for size in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
        for seed in range(3)
    ]  # fmt: skip
    return gather(
        designs(from_frame(pd.DataFrame(rows), "t"), Selection())[0],
        Question(target=TARGET, replicates=100),
        np.random.default_rng(0),
    )


def test_tables_whose_seeds_agree_are_answered_by_their_hill_curves():
    rng = np.random.default_rng(0)
    rejected = covered = 0
    for e in 10.0 ** rng.uniform(1.5, 3.5, (30, 2)):
        evidence = study(e)
        for curve, estimates in zip(evidence.curves, evidence.estimates, strict=True):
            truth = math.log10(4 * e[("sft", "grpo").index(curve.label)])  # 0.7 lies at four fifths of the way
            rejected += estimates.fit_p[0] < 0.05
            covered += estimates.hill.low[0] <= truth <= estimates.hill.high[0]
    assert rejected <= 9  # of 60: more has a chance of 0.1 % at 5 %
    assert covered >= 51


def test_the_null_calibration_rounds_as_the_study_does():
    found = null_calibration(study((300.0, 300.0)), 1, 0, 400, np.random.default_rng(0))
    assert found.excludes_1 <= 0.05 + 3 * found.standard_error
    assert found.claims_10 == 0


def test_without_counts_seeds_that_agree_give_no_interval():
    rows = [
        {"method": "sft", "trained_parameters": 10**k, "seed": seed, "accuracy": 0.3 + 0.1 * k}
        for k in range(5) for seed in range(3)
    ]  # fmt: skip
    found = study_thresholds(from_frame(pd.DataFrame(rows), "t"), Selection(), Question(target=0.5), null=0)
    assert found.thresholds[0].threshold.estimate == pytest.approx(100, rel=0.05)
    assert (found.thresholds[0].threshold.low, found.thresholds[0].threshold.high) == (None, None)
    assert found.evidence[0].basis == "none: neither counts nor seeds that differ"
