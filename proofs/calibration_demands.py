"""What calibration.py demands of each case of its grid, and the tests of the reasons for which a case may exceed it.

Every case covers at least 93 %, and has at most 2.5 % of false claims. It covers at most 98 %, and its median interval
is at most 1.15 times as wide as the width that holds 95 % of the estimates. A case exceeds these two only for a reason
(`because`), and the reason is tested on the same case in one of two ways:

- `without`: the case without the cause, simulated too. It must meet all demands.
- `no_curve`: what the tested sizes allow. Suppose that the accuracy of each size is what it is on average, with a known
  standard error, and that nothing is known between sizes. The interval must be at most 1.15 times as wide as then.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from calibration_truths import ARMS

from capacity_analysis.statistics.monotone import brackets
from capacity_analysis.types import Array

LEAST, MOST, WIDEST, FALSE_CLAIMS = 0.93, 0.98, 1.15, 0.025
QUANTITIES = (*ARMS, "ratio")
# Normal quantiles of 95 %, and of the two parts of a ratio at 97.5 % each.
_WHOLE, _HALF = 1.959964, 2.241403


def widths_without_a_curve(log_sizes: Array, z: Array) -> dict[str, float]:
    """The width of each interval where only the mean accuracies are known, with standard errors that are known.

    Args:
        log_sizes: of both arms, K.
        z: the simulated differences from the target, n × 2K, sft first.
    """
    k = len(log_sizes)
    mean, error = z.mean(0)[None], np.maximum(z.std(0), 1e-9)[None]
    found: dict[str, float] = {}
    both = []
    for arm, here in zip(ARMS, (slice(0, k), slice(k, 2 * k)), strict=True):
        alone, part = (brackets(log_sizes, mean[:, here], error[:, here], t) for t in (_WHOLE, _HALF))
        found[arm] = float(alone.high[0] - alone.low[0])
        both.append(part.high[0] - part.low[0])
    return found | {"ratio": float(sum(both))}


def broken(found: Mapping[str, Any]) -> list[str]:
    """What a case misses that no reason can excuse, a sentence each."""
    missed = [
        f"{found['name']}: the interval of {name} covers {100 * found[f'{name} default'][0]:.1f} %"
        for name in QUANTITIES
        if found[f"{name} default"][0] < LEAST
    ]
    if found["truth"][2] == 0 and found["claims 10"] > FALSE_CLAIMS:
        missed.append(f"{found['name']}: {100 * found['claims 10']:.1f} % false claims")
    return missed


def times_as_wide(found: Mapping[str, Any], name: str) -> float:
    """The median width over the width that holds 95 % of the estimates; NaN where one of them is open."""
    width, ideal = found[f"{name} default"][1], found[f"{name} ideal"]
    return float(width / ideal) if np.isfinite(width) and np.isfinite(ideal) else np.nan


def exceeded(found: Mapping[str, Any]) -> list[str]:
    """The quantities that cover more than 98 %, or are wider than 1.15 times the spread of their estimates."""
    return [name for name in QUANTITIES if found[f"{name} default"][0] > MOST or times_as_wide(found, name) > WIDEST]


def judged(found: Mapping[str, Any], raw: Mapping[str, Any], counterpart: Mapping[str, Any] | None) -> list[str]:
    """All that a case misses, a sentence each; empty if it meets the demands, or exceeds them for a tested reason.

    Args:
        found: the result of the case.
        raw: its lines in the grid.
        counterpart: the result of the case without the cause; None if the grid names none.
    """
    missed, beyond = broken(found), exceeded(found)
    if counterpart is not None:
        missed += [f"without its cause, {sentence}" for sentence in broken(counterpart)]
        missed += [
            f"{found['name']}: the interval of {name} exceeds the limits without the stated cause, too"
            for name in exceeded(counterpart)
        ]
    elif "no_curve" in raw:
        missed += [
            f"{found['name']}: the interval of {name} is wider than tested sizes without a curve explain"
            for name in beyond
            if found[f"{name} default"][1] > WIDEST * found[f"{name} no curve"]
        ]
    else:
        missed += [f"{found['name']}: the interval of {name} exceeds the limits without a reason" for name in beyond]
    return missed
