"""Estimates: a value, its interval, and what the interval is for.

Answers form a matrix: S seeds × I items, each entry the share of correct samples. Items are shared by all seeds and
cells (crossed, not nested). What is wanted is the accuracy of fresh seeds on fresh items of the same kind.

This is the one default for the accuracy of a cell. It rests on the runs of that cell alone, so every command and page
prints the same numbers for the same cell. Intervals that pool the spread of several cells, or are for the items that
were asked, stand under names of their own.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri

from capacity_analysis.statistics.crossed import Crossed, SeedVariance
from capacity_analysis.statistics.error_spending import LookError
from capacity_analysis.types import Array
from capacity_analysis.words import minus

# What is drawn anew: seeds and items; seeds, on the items that were asked; items, with the seed that was run.
Over = Literal["seeds and items", "seeds", "items"]
_WORDS: dict[Over, str] = {
    "seeds and items": "fresh seeds and items",
    "seeds": "fresh seeds on these items",
    "items": "fresh items, one seed",
}


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval.

    Attributes:
        value: an accuracy, or a difference of accuracies.
        low, high: ends of the interval; None if nothing says how wide it is.
        over: what the interval is for; None without one.
        seeds: how many seeds the value is the mean of.
        items: how many items each seed answered; None if that is not known.
        pooled: the variance between seeds is that of several cells together, not of this cell's own seeds.
        counted: only counts are known, so the variance between items is the largest that they allow.
        confidence: of the interval.
        crossed: of a difference, the mean squares behind the interval.
        look: the look of the study that the interval is for, if it may stop at any of several.
    """

    value: float
    low: float | None
    high: float | None
    over: Over | None
    seeds: int
    items: int | None = None
    pooled: bool = False
    counted: bool = False
    confidence: float = 0.95
    crossed: Crossed | None = None
    look: LookError | None = None

    @classmethod
    def none(cls, value: float, seeds: int, items: int | None = None) -> "Estimate":
        """A value of which nothing says how far off it may be."""
        return cls(value, None, None, None, seeds, items)

    @property
    def sign(self) -> int:
        """1 or −1 if the whole interval lies on that side of 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def excludes_zero(self, confidence: float) -> bool:
        """Tells whether the interval of a difference at another confidence excludes 0.

        False if nothing is known of its variance.

        Args:
            confidence: the two-sided one; that of all looks together if the study may stop at any of several.
        """
        if self.crossed is None or self.items is None:
            return False
        if self.look is not None:
            confidence = self.look.at(confidence)
        return estimate_of(self.value, self.crossed, self.seeds, self.items, confidence).sign != 0

    @property
    def label(self) -> str:
        """What the interval is for: "95 %, fresh seeds and items, 3 seeds"."""
        return labels([self])

    def percent(self) -> str:
        """An accuracy in percent: "61.2 (58.0–64.3)"."""
        if self.low is None or self.high is None:
            return f"{100 * self.value:.1f}"
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}–{100 * self.high:.1f})"

    def points(self) -> str:
        """A difference in percentage points: "+2.2 (−1.0 to +5.4)"."""
        if self.low is None or self.high is None:
            return minus(f"{100 * self.value:+.1f}")
        return minus(f"{100 * self.value:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})")

    def to_json(self, name: str = "estimate") -> dict[str, Any]:
        """Plain JSON types; the value stands under `name`."""
        return {
            name: self.value,
            "low": self.low,
            "high": self.high,
            "interval": self.label,
            "seeds": self.seeds,
            "n_items": self.items,
        }


def labels(estimates: Iterable[Estimate]) -> str:
    """What the intervals of a table, a figure or a sentence are for, each kind once: "95 %, fresh items, one seed"."""
    seeds: dict[str, list[int]] = {}
    for e in estimates:
        if e.over is None:
            continue
        whole = f"{100 * e.confidence:g} %" if e.look is None else f"{100 * e.look.together:g} % over all looks"
        kind = f"{whole}, {_WORDS[e.over]}"
        kind += ", variance pooled over sizes" if e.pooled else ""
        kind += ", from counts" if e.counted else ""
        seeds.setdefault(kind, []).append(e.seeds)
    return "; ".join(kind + _counted_seeds(found) for kind, found in seeds.items()) or "no intervals"


def _counted_seeds(seeds: list[int]) -> str:
    """ ", 3 seeds" or ", 2 to 3 seeds"; one seed is in the words already."""
    least, most = min(seeds), max(seeds)
    return "" if most == 1 else f", {least} seeds" if least == most else f", {least} to {most} seeds"


def accuracy_estimate(shares: Array, confidence: float = 0.95, *, keep_seeds: bool = False) -> Estimate:
    """The accuracy of a cell, for fresh seeds and fresh items.

    With one seed the interval is Wilson's over items (JASA 1927). With several it has Wilson's form. Its sample size is
    the one at which the binomial has the variance found for seeds and items together. Its quantile gives its half-width
    (after Korn & Graubard 1998). It stays inside [0, 1] and holds the value. It is never narrower than the items alone
    allow, also at 0 or 1.

    Args:
        shares: shares of correct samples in [0, 1], seeds × items.
        confidence: the two-sided confidence.
        keep_seeds: as `Crossed.keeps_seeds`.
    """
    seeds, items = shares.shape
    crossed = replace(Crossed.of(shares), keeps_seeds=keep_seeds)
    return _accuracy(float(shares.mean()), crossed, seeds, items, confidence)


def counted_estimate(accuracies: Array, items: int, confidence: float = 0.95) -> Estimate:
    """The accuracy of a cell of which only the counts of each seed are known, not which answers were correct.

    It is that of `accuracy_estimate` with the largest variance that item means of this average can have: p (1 − p)
    (Bhatia & Davis 2000). So it is usually wider. With one seed it is the same.

    Args:
        accuracies: the accuracy of each of S seeds.
        items: how many items each of them answered.
        confidence: the two-sided confidence.
    """
    p, df = float(accuracies.mean()), len(accuracies) - 1
    of_items = p * (1 - p) / (items - 1) if items > 1 else 0.0
    largest = Crossed(_of_seeds(accuracies), of_items, 0.0, df, items - 1, 0)
    return _accuracy(p, largest, df + 1, items, confidence, counted=df > 0)


def uncounted_estimate(accuracies: Array, confidence: float = 0.95) -> Estimate:
    """The accuracy of a cell of which only the accuracies of its seeds are known.

    The interval is Student's over seeds, for fresh seeds on these items.

    There is no interval for one seed, nor for seeds that agree exactly: their spread cannot be told.
    """
    p, seeds = float(accuracies.mean()), len(accuracies)
    of_seeds = Crossed(_of_seeds(accuracies), 0.0, 0.0, seeds - 1, 0, 0)
    if of_seeds.seeds == 0:
        return Estimate.none(p, seeds)
    half = of_seeds.half_width(confidence)
    return Estimate(p, max(0.0, p - half), min(1.0, p + half), "seeds", seeds, confidence=confidence)


def difference_estimate(
    first: Array, second: Array, confidence: float = 0.95, *, over_methods: SeedVariance | None = None
) -> Estimate:
    """The accuracy of `first` minus that of `second`, paired by seed and item, for fresh seeds and fresh items.

    The half-width is that of `Crossed`, and at least z²/(I + z²), Wilson's for a difference never seen in I items.
    Answers that agree on every item, or disagree on every item, still leave the items that were not asked.

    Args:
        first: shares of correct samples, seeds × items.
        second: those of the same seeds and items in the same order; a single row is a fixed reference, such as the
            untrained base.
        confidence: the two-sided confidence.
        over_methods: the variance between seeds in the other contrasts of the comparison, which may be pooled.

    Raises:
        ValueError: the shapes cannot be paired.
    """
    if second.shape[1] != first.shape[1] or second.shape[0] not in (1, first.shape[0]):
        raise ValueError(f"answers of shapes {first.shape} and {second.shape} cannot be paired")
    table = first - second
    crossed = Crossed.of(table)
    if over_methods is not None:
        crossed = crossed.pooled(over_methods)
    return estimate_of(float(table.mean()), crossed, len(table), table.shape[1], confidence)


def estimate_of(mean: float, crossed: Crossed, seeds: int, items: int, confidence: float = 0.95) -> Estimate:
    """A difference of accuracies with the interval of its mean squares.

    Args:
        mean: the difference.
        crossed: the mean squares behind it.
        seeds, items: how many it is the mean of.
        confidence: the two-sided confidence.
    """
    half = max(crossed.half_width(confidence), least_half_width(items, confidence))
    return Estimate(
        mean,
        max(-1.0, mean - half),
        min(1.0, mean + half),
        _over(seeds),
        seeds,
        items,
        confidence=confidence,
        crossed=crossed,
    )


def least_half_width(items: int, confidence: float) -> float:
    """The half-width of a difference never seen in I items, z²/(I + z²)."""
    z = _normal_quantile(confidence)
    return z * z / (items + z * z)


def _over(seeds: int) -> Over:
    return "items" if seeds == 1 else "seeds and items"


def _of_seeds(means: Array) -> float:
    """The variance of the mean of seeds; exactly 0 for one, and for seeds that agree."""
    return float(means.var(ddof=1)) / len(means) if len(means) > 1 and np.ptp(means) > 0 else 0.0


def _normal_quantile(confidence: float) -> float:
    return float(ndtri(0.5 + confidence / 2))


def _accuracy(
    p: float, crossed: Crossed, seeds: int, items: int, confidence: float, *, counted: bool = False
) -> Estimate:
    half, variance = crossed.half_width(confidence), crossed.variance
    size, z = float(items), _normal_quantile(confidence)
    if seeds > 1 and variance > 0:
        size = min(max(p * (1 - p) / variance, 1.0), float(items * seeds))
        z = max(z, half / math.sqrt(variance))
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    width = z * math.sqrt(p * (1 - p) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    low, high = max(0.0, min(p, centre - width)), min(1.0, max(p, centre + width))
    return Estimate(p, low, high, _over(seeds), seeds, items, counted=counted, confidence=confidence)
