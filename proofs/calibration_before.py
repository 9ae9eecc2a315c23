"""The intervals of the earlier estimators, of commit b5bd0a2, for studies that calibration.py has simulated.

    python proofs/calibration_before.py STUDIES INTERVALS

`calibration.py --before CHECKOUT` starts this with the packages of that checkout. STUDIES and INTERVALS are NumPy
archives. These estimators took the base as known, and no error that draws share. They set aside no seeds.
"""

import sys
from dataclasses import replace

import numpy as np

from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.spread import seed_correlation, spread_of_seeds
from capacity_analysis.thresholds.estimators import (
    against_target,
    believes_hill,
    cross_covariance,
    estimate_curve,
    hill_ratio,
    monotone_ratio,
)

ARMS = ("sft", "grpo")


def main() -> None:
    given = np.load(sys.argv[1])
    log_sizes, share, items = given["log_sizes"], float(given["share"]), dict(given).get("items")
    k, n = len(log_sizes), len(given["base"])
    spreads = {arm: spread_of_seeds(given[arm], given["answers"]) for arm in ARMS}
    if items is not None:
        spreads = {
            arm: replace(own, between=np.maximum(own.between - given[f"{arm} twice"], 0.0))
            for arm, own in spreads.items()
        }
    sft, grpo = (spreads[arm] for arm in ARMS)
    target = np.full(n, float(given["target"]))
    if share:
        target = given["base"] + share * (grpo.mean[:, -1] - given["base"])
    variance = share**2 * grpo.variance[:, -1]
    with_target = {arm: np.zeros_like(sft.mean) for arm in ARMS}
    with_target["grpo"][:, -1] = share * grpo.variance[:, -1]
    data = {}
    for arm, here in zip(ARMS, (slice(0, k), slice(k, 2 * k)), strict=True):
        own = None if items is None else items[:, here, here]
        data[arm] = against_target(log_sizes, spreads[arm], target, variance, with_target[arm], own)
    rho = seed_correlation(sft.deviations, grpo.deviations)
    paired = (rho[:, None] * np.sqrt(sft.between * grpo.between))[:, :, None] * np.eye(k)
    over_items = None if items is None else items[:, :k, k:]
    cross = cross_covariance(with_target["sft"], with_target["grpo"], variance, paired, over_items)

    arms = {arm: estimate_curve(own, limits_around(target, None, None)) for arm, own in data.items()}
    found = {}
    for arm, one in arms.items():
        found[f"{arm} used"] = believes_hill(one)
        found[f"{arm} hill"] = np.stack([one.hill.size, one.hill.low, one.hill.high])
        found[f"{arm} monotone"] = np.stack([one.monotone.size, one.monotone.low, one.monotone.high])
    found["ratio used"] = believes_hill(*arms.values())
    by_hill = hill_ratio(data["sft"], data["grpo"], arms["sft"].hill, arms["grpo"].hill, cross, paired)
    for name, ratio in (("hill", by_hill), ("monotone", monotone_ratio(*arms.values()))):
        found[f"ratio {name}"] = np.stack([ratio.estimate, ratio.low, ratio.high])
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
