"""The steps of an adaptive design: trials on validation, then results, until the goal is reached.

Rates are chosen on validation alone. Sizes follow from the trials and from the first results. Later results decide how
many runs are made. Where no Hill curve fits, the interval of the threshold is bisected by new sizes.
"""

import math
from collections.abc import Sequence

import numpy as np

from capacity_analysis.design.further import SEEDS, best, bisected, enough, is_gap, nearest_new
from capacity_analysis.design.information import Precision, precision
from capacity_analysis.design.pilot import (
    FIRST_SEEDS,
    FIRST_SIZES,
    curves_of,
    pilot_batch,
    rate_at,
    targets_of,
    tuned_rates,
)
from capacity_analysis.design.posterior import Curves
from capacity_analysis.design.state import Ask, Batch, Goal, Measured, Results, Setting, Stop
from capacity_analysis.types import Array

_GAP = 0.2  # decades between the first sizes
_GROWTH = 0.5  # between two looks at a ratio, or at an open interval, results grow by this share
_ERROR = 0.05  # the chance that some look at a ratio excludes the true one
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
        found = {m: curves_of(setting, results, m, base) for m in setting.methods}
        lost = [m for m, curves in found.items() if curves is None]
        if lost:
            return Stop(f"Too few trials of {lost[0]} on validation gave a result.", reached=False)
        end = ended(setting, looks[-1]) if looks else None
        if end is not None:
            return end
        methods = [_Method(setting, results, m, c, base, found) for m, c in found.items() if c is not None]
        batch = _further(setting, results, methods, looks[-1]) if looks else _first(methods)
    if len(results) + len(batch.runs) > setting.goal.most_runs:
        return Stop(f"The next batch would exceed {setting.goal.most_runs} runs.", reached=False)
    return batch


def ended(setting: Setting, measured: Measured) -> Stop | None:
    """Returns the end of the study if its goal is reached or cannot be reached, else None."""
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
    wide = {m: half for m, half in measured.halves.items() if m not in (*beyond, *before)}
    if any(half > (goal.half_width or 0.0) for half in wide.values()):
        return None
    if out:
        return Stop(f"The other thresholds are known, and these lie outside: {', '.join(out)}.", reached=True)
    widest = max(wide.values(), default=0.0)
    return Stop(f"Each threshold is known to ±{widest:.2f} decades or better.", reached=True)


def confidence(goal: Goal, methods: int) -> float:
    """The confidence at which each look at the ratio is judged.

    The looks that a study may have share an error of 5 % equally (Bonferroni). So all of their intervals together hold
    the true ratio in 95 % of studies, whichever look ends the study.
    """
    results, looks = methods * FIRST_SIZES * FIRST_SEEDS, 1
    while results < goal.most_runs:
        results += methods * math.ceil(results / methods * _GROWTH)
        looks += 1
    return 1 - _ERROR / looks


class _Method:
    """One method of a study, with the results that it has and what further ones are expected to tell."""

    def __init__(
        self,
        setting: Setting,
        results: Results,
        name: str,
        curves: Curves,
        base: float,
        every: dict[str, Curves | None],
    ) -> None:
        self.setting, self.name, self.curves = setting, name, curves
        self.rates = tuned_rates(setting, results, name)
        self.target = targets_of(setting, {m: c for m, c in every.items() if c is not None}, base)[name]
        self.counts = np.zeros(len(setting.log_sizes))
        for ask in results:
            self.counts[ask.size] += not ask.validation and ask.method == name

    def tells(self, counts: Array) -> Precision:
        """What so many runs at each candidate size say of its threshold."""
        moves = 0.0 if self.setting.target is not None else self.setting.gain
        return precision(self.curves, self.target, moves, self.setting.log_sizes, counts, self.setting.items)

    def runs(self, places: Sequence[int]) -> list[Ask]:
        """Further runs at some sizes, with the next seeds of each."""
        counts, asks = self.counts.copy(), []
        for place in places:
            rate = rate_at(self.setting, self.rates, place)
            asks.append(Ask(self.name, place, rate, int(counts[place]), False))
            counts[place] += 1
        return asks

    def filled(self, places: list[int], count: int) -> list[int]:
        """The places with further ones, which are expected to tell most, up to a number."""
        counts = self.counts + np.bincount(places, minlength=len(self.counts))
        found = list(places)
        while len(found) < count:
            found.append(best(self.tells(counts), counts))
            counts[found[-1]] += 1
        return found

    def needs(self, measured: Measured) -> list[int]:
        """The places of the runs after which its interval is expected to be as narrow as asked."""
        interval = measured.thresholds[self.name]
        half = measured.halves[self.name]
        wanted = self.setting.goal.half_width or 0.0
        if half <= wanted:
            return []
        sizes = self.setting.log_sizes
        if not measured.believed.get(self.name, True) or is_gap(sizes, self.counts, interval):
            middle = bisected(sizes, self.counts, interval)
            if middle is None:
                middle = nearest_new(sizes, self.counts, interval)
            if middle is not None:
                return [middle] * SEEDS
        if np.isinf(half):
            return self.filled([], math.ceil(self.counts.sum() * _GROWTH))
        return enough(self.tells, self.counts, wanted / half)


def _first(methods: Sequence[_Method]) -> Batch:
    """The first results: the same number of seeds at as many sizes of each method."""
    asks = [a for m in methods for a in m.runs([p for p in _first_places(m) for _ in range(FIRST_SEEDS)])]
    return Batch(tuple(asks), "Two seeds at the five sizes that are expected to tell most of each threshold.")


def _further(setting: Setting, results: Results, methods: Sequence[_Method], measured: Measured) -> Batch:
    """The results that are expected to be the last ones, as many of each method as the method needs that needs most."""
    room = (setting.goal.most_runs - len(results)) // len(methods)
    least = max(setting.batch // len(methods), 1)
    if setting.goal.decide is not None:
        needs: dict[str, list[int]] = {m.name: [] for m in methods}
        least = math.ceil(max(m.counts.sum() for m in methods) * _GROWTH)
    else:
        needs = {m.name: m.needs(measured) for m in methods}
    each = max(min(max(least, *map(len, needs.values())), room), 1)
    asks = [a for m in methods for a in m.runs(m.filled(needs[m.name][:each], each))]
    widths = ", ".join(f"{m} ±{w:.2f}" if np.isfinite(w) else f"{m} open" for m, w in measured.halves.items())
    why = f"The goal is not reached: half-widths in decades are {widths}."
    return Batch(tuple(asks), f"{why} Each method gets {each} runs before the next look.")


def _first_places(method: _Method) -> list[int]:
    log_sizes, with_last = method.setting.log_sizes, method.setting.target is None
    last = len(log_sizes) - 1
    counts, places = np.zeros(last + 1), [last] if with_last else []
    counts[places] += FIRST_SEEDS
    gap = min(_GAP, (log_sizes[-1] - log_sizes[0]) / (2 * FIRST_SIZES))
    while len(places) < FIRST_SIZES:
        apart = np.abs(log_sizes[:, None] - log_sizes[places]) if places else np.ones((last + 1, 1))
        free = apart.min(1) >= gap
        if not free.any():
            free = counts == 0
        place = int(np.argmax(np.where(free, method.tells(counts).reduction, -1.0)))
        places.append(place)
        counts[place] += FIRST_SEEDS
    return sorted(places)
