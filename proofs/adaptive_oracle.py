"""The least runs for an interval of some width: those of a design that knows both curves and the spread of runs.

Such a design is c-optimal: it makes the variance of one threshold as small as a number of runs allows. Its weights
follow from the multiplicative algorithm of Silvey, Titterington & Torsney (Communications in Statistics 1978). Its
interval is that of a known variance, ±1.96 standard errors. No design that must find the curve reaches it.
"""

import math

import numpy as np
from calibration_truths import ARMS, Case, class_probabilities, expected

from capacity_analysis.design.information import gradient
from capacity_analysis.design.posterior import Curves
from capacity_analysis.types import Array

_TURNS, _RIDGE, _Z = 2000, 1e-9, 1.96


def least_runs(case: Case, log_sizes: Array, half_width: float) -> int | None:
    """The runs of both arms for intervals of this half-width in decades.

    None where an arm is no Hill curve, or where its threshold lies outside of the sizes.
    """
    first, last = log_sizes[0], log_sizes[-1]
    if any(case.spec[arm]["kind"] != "hill" or not first < case.truth[arm] < last for arm in ARMS):
        return None
    return sum(math.ceil(_Z**2 * variance_of_one_run(case, arm, log_sizes) / half_width**2) for arm in ARMS)


def variance_of_one_run(case: Case, arm: str, log_sizes: Array) -> float:
    """The variance of log10 of a threshold by the best design, times its number of runs."""
    s = case.spec
    curve = Curves(
        *(np.array([v]) for v in (s[arm]["lower"], s[arm]["upper"], np.log10(s[arm]["midpoint"]), s[arm]["slope"]))
    )
    chances = class_probabilities(expected(s[arm], log_sizes, 0.0), s["concentration"])
    noise = (chances * (1 - chances)).mean(1) / s["items"] + s["seed_sd"] ** 2
    slopes = gradient(curve, log_sizes)[0] / np.sqrt(noise)[:, None]
    own = gradient(curve, np.array([case.truth[arm]]))[0, 0]
    wanted = own / -own[2]
    if arm == "grpo" and not case.absolute:  # the target moves with its largest size
        wanted = wanted - s["gain"] * gradient(curve, log_sizes)[0, -1] / -own[2]
    weights = np.full(len(log_sizes), 1 / len(log_sizes))
    for _ in range(_TURNS):
        inverse = np.linalg.inv(slopes.T @ (slopes * weights[:, None]) + _RIDGE * np.eye(4))
        weights = weights * np.abs(slopes @ inverse @ wanted)
        weights = weights / weights.sum()
    return float(wanted @ np.linalg.inv(slopes.T @ (slopes * weights[:, None]) + _RIDGE * np.eye(4)) @ wanted)
