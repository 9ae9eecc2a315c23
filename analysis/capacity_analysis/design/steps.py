"""The steps of an adaptive design: trials on validation, then results, until the goal is reached.

Sizes and rates are chosen on validation alone. The results on the test split decide when to stop. They also tell
whether a Hill curve fits. Without one, new sizes are added instead of seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.design.information import precision
from capacity_analysis.design.pilot import curves_of, pilot_batch, rate_at, targets_of, tuned_rates
from capacity_analysis.design.posterior import Curves
from capacity_analysis.design.state import Ask, Batch, Measured, Results, Setting, Stop
from capacity_analysis.types import Array

FIRST_SIZES = 5  # a Hill curve has four parameters, and its test of fit needs one size more
FIRST_SEEDS = 2
# A study that stops at the first narrow interval stops where the variance happens to be estimated too small. So the
# goal must be reached after two batches in a row.
CONFIRMED = 2
_GAP = 0.2  # decades between the first sizes
_NEW_SIZE = 1.1  # a new size must tell so many times more than another seed of a size that is there
_AROUND = 1.0  # decades around a threshold in which further sizes are added
_CLOSE = 1e-6


def next_step(setting: Setting, results: Results, base: float, looks: Sequence[Measured]) -> Batch | Stop:
    """What an adaptive design does next. It depends on its arguments alone.

    Args:
        setting: what is asked.
        results: of all runs that were asked for, in the order in which they were.
        base: the accuracy of the untrained model on validation.
        looks: the intervals after each batch of results on the test split.
    """
    batch = pilot_batch(setting, results, base)
    if batch is None:
        curves = {m: curves_of(setting, results, m) for m in setting.methods}
        lost = [m for m, found in curves.items() if found is None]
        if lost:
            return Stop(f"Too few trials of {lost[0]} on validation gave a result.", reached=False)
        ends = [ended(setting, look) for look in looks[-CONFIRMED:]]
        if len(ends) == CONFIRMED and None not in ends:
            assert ends[-1] is not None
            return ends[-1]
        known = {m: c for m, c in curves.items() if c is not None}
        batch = _result_batch(setting, results, known, base, looks[-1] if looks else None)
    if len(results) + len(batch.runs) > setting.goal.most_runs:
        return Stop(f"The next batch would exceed {setting.goal.most_runs} runs.", reached=False)
    return batch


def ended(setting: Setting, measured: Measured) -> Stop | None:
    """Whether the goal is reached, or cannot be."""
    goal, first, last = setting.goal, setting.log_sizes[0], setting.log_sizes[-1]
    beyond = [m for m, (low, high) in measured.thresholds.items() if low >= last - _CLOSE and np.isinf(high)]
    before = [m for m, (low, high) in measured.thresholds.items() if high <= first + _CLOSE and np.isinf(low)]
    out = [*(f"{m} beyond the largest size" for m in beyond), *(f"{m} before the smallest size" for m in before)]
    if goal.decide is not None and measured.ratio is not None:
        low, high = measured.ratio
        decided = low > np.log10(goal.decide) or high < np.log10(goal.decide)
        side = "above" if low > np.log10(goal.decide) else "below"
        if decided:
            return Stop(f"The ratio of thresholds is {side} {goal.decide:g}.", reached=True)
        if len(out) == len(measured.thresholds):
            return Stop(f"The thresholds lie outside: {', '.join(out)}.", reached=False)
        return None
    wide = {m: (high - low) / 2 for m, (low, high) in measured.thresholds.items() if m not in (*beyond, *before)}
    if any(half > (goal.half_width or 0.0) for half in wide.values()):
        return None
    if out:
        return Stop(f"The other thresholds are known, and these lie outside: {', '.join(out)}.", reached=True)
    widest = max(wide.values(), default=0.0)
    return Stop(f"Each threshold is known to ±{widest:.2f} decades or better.", reached=True)


def _result_batch(
    setting: Setting, results: Results, curves: dict[str, Curves], base: float, measured: Measured | None
) -> Batch:
    targets = targets_of(setting, curves, base)
    moves = 0.0 if setting.target is not None else setting.gain
    each = FIRST_SIZES * FIRST_SEEDS if measured is None else max(setting.batch // len(setting.methods), 1)
    asks: list[Ask] = []
    for method, found in curves.items():
        tuned, counts = tuned_rates(setting, results, method), _counts(setting, results, method)

        def tells(counts: Array, found: Curves = found, target: Array = targets[method]) -> Array:
            return precision(found, target, moves, setting.log_sizes, counts, setting.items).reduction

        if measured is None:
            places = _first_places(setting, tells, with_last=moves > 0)
            picked = [place for place in places for _ in range(FIRST_SEEDS)]
        else:
            centre = float(np.median(np.clip(found.threshold(targets[method]), *setting.log_sizes[[0, -1]])))
            new = np.abs(setting.log_sizes - centre) <= _AROUND
            # Where no curve describes the sizes, only further sizes around the threshold can narrow the interval.
            only = np.ones_like(new) if measured.believed.get(method, True) else new
            picked = _more_places(each, tells, counts.copy(), only)
        for place in picked:
            asks.append(Ask(method, place, rate_at(setting, tuned, place), int(counts[place]), False))
            counts[place] += 1
    if measured is None:
        return Batch(tuple(asks), "Two seeds at the five sizes that are expected to tell most of each threshold.")
    half = {m: (high - low) / 2 for m, (low, high) in measured.thresholds.items()}
    widths = ", ".join(f"{m} ±{w:.2f}" if np.isfinite(w) else f"{m} open" for m, w in half.items())
    reached = ended(setting, measured) is not None
    state = "The goal is reached, and one more batch must confirm it" if reached else "The goal is not reached"
    return Batch(tuple(asks), f"{state}: half-widths in decades are {widths}. Each method gets {each} runs.")


def _first_places(setting: Setting, tells: Callable[[Array], Array], *, with_last: bool) -> list[int]:
    last = len(setting.log_sizes) - 1
    counts, places = np.zeros(last + 1), [last] if with_last else []
    counts[places] += FIRST_SEEDS
    gap = min(_GAP, (setting.log_sizes[-1] - setting.log_sizes[0]) / (2 * FIRST_SIZES))
    while len(places) < FIRST_SIZES:
        apart = np.abs(setting.log_sizes[:, None] - setting.log_sizes[places]) if places else np.ones((last + 1, 1))
        free = apart.min(1) >= gap
        if not free.any():
            free = counts == 0
        place = int(np.argmax(np.where(free, tells(counts), -1.0)))
        places.append(place)
        counts[place] += FIRST_SEEDS
    return sorted(places)


def _more_places(each: int, tells: Callable[[Array], Array], counts: Array, new: NDArray[np.bool_]) -> list[int]:
    """The sizes of further runs. Unless every size is allowed to be `new`, none that is there gets another seed."""
    picked = []
    for _ in range(each):
        worth, old = tells(counts), counts > 0
        if new.all() or not (new & ~old).any():
            worth[old] *= _NEW_SIZE
        else:
            worth[old | ~new] = -1.0
        place = int(np.argmax(worth))
        picked.append(place)
        counts[place] += 1
    return picked


def _counts(setting: Setting, results: Results, method: str) -> Array:
    counts = np.zeros(len(setting.log_sizes))
    for ask in results:
        counts[ask.size] += not ask.validation and ask.method == method
    return counts
