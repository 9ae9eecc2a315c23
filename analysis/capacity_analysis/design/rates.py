"""Learning rates of an adaptive design: successive halving at one size, and rates that are carried to the others.

Successive halving is that of Jamieson & Talwalkar ("Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016), with seeds as its resource. Every method tries equally many rates at a size.
"""

from collections.abc import Mapping, Sequence

import numpy as np

KEPT = 3  # one rate in so many goes on to the next seed

Trials = Mapping[int, Sequence[float | None]]  # by rate, the accuracy at each seed; None where a run failed


def rungs(rates: int) -> tuple[int, ...]:
    """How many rates have a run at the first seed, the second, and so on."""
    found = [rates]
    while found[-1] > 1:
        kept = -(-found[-1] // KEPT)
        if kept == 1:
            break
        found.append(kept)
    return tuple(found)


def survivors(trials: Trials, count: int) -> tuple[int, ...]:
    """The rates with the highest mean accuracy over their seeds, the smaller rate of equals; failed ones come last."""

    def worth(rate: int) -> tuple[int, float]:
        known = [a for a in trials[rate] if a is not None]
        return (-len(trials[rate]), -float(np.mean(known))) if len(known) == len(trials[rate]) else (0, 0.0)

    return tuple(sorted(sorted(trials, key=lambda rate: (worth(rate), rate))[:count]))


def neighbours(rate: int, rates: int) -> tuple[int, ...]:
    """A rate and those beside it on the grid: three, or all of a smaller grid."""
    first = min(max(rate - 1, 0), max(rates - 3, 0))
    return tuple(range(first, min(first + 3, rates)))


def carried(log_size: float, tuned: Mapping[float, int]) -> int:
    """The rate at a size between tuned sizes: straight in log size between the nearest two, to the nearest rate."""
    sizes = sorted(tuned)
    return round(float(np.interp(log_size, sizes, [tuned[size] for size in sizes])))
