"""Intervals of accuracies and of accuracy differences when the same items are answered by several seeds.

Outcomes form a matrix of S seeds × I items; each entry is a share of right samples. All seeds and arms share the items
(crossed, not nested). The intervals are for fresh seeds *and* fresh items of the same kind.
"""

import math
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from capacity_analysis.types import Array


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval, and how it was made.

    With one seed the spread between seeds is unknown: the interval covers fresh items only.
    """

    estimate: float
    low: float
    high: float
    method: str
    seeds: int
    items: int
    confidence: float = 0.95


def _crossed_half_width(matrix: Array, confidence: float) -> tuple[float, float]:
    """The half-width of the interval of the grand mean of a seeds × items matrix, and the variance behind it.

    There are two terms, s²(seed means)/S and s²(item means)/I, each with its own Student quantile:
    half² = Σ t²(dfᵢ) · varianceᵢ (Banerjee, Biometrika 1960). It never covers less than `confidence`, whatever share
    each term has. Each term has the residual in it, so the residual is counted twice, on the safe side (Owen, "The
    pigeonhole bootstrap", 2007, section 4).
    """
    seeds, items = matrix.shape
    terms = []
    if seeds > 1:
        terms.append((float(matrix.mean(1).var(ddof=1)) / seeds, seeds - 1))
    if items > 1:
        terms.append((float(matrix.mean(0).var(ddof=1)) / items, items - 1))
    squared = sum(v * float(stdtrit(df, 0.5 + confidence / 2)) ** 2 for v, df in terms)
    return math.sqrt(squared), sum(v for v, _ in terms)


def _normal_quantile(confidence: float) -> float:
    return float(ndtri(0.5 + confidence / 2))


def accuracy_interval(outcomes: Array, confidence: float = 0.95) -> Interval:
    """The interval of an arm's accuracy.

    With one seed it is Wilson's interval over items (JASA 1927). With several it has Wilson's form, with the sample
    size at which the binomial has the variance found for seeds and items together, and with the quantile that gives
    its half-width (after Korn & Graubard 1998). It stays inside [0, 1] and holds the estimate. It is never narrower
    than the items alone allow, also at 0 or 1.

    Args:
        outcomes: shares of right samples in [0, 1], seeds × items.
        confidence: the two-sided confidence.
    """
    seeds, items = outcomes.shape
    p = float(outcomes.mean())
    half, variance = _crossed_half_width(outcomes, confidence)
    size, z = float(items), _normal_quantile(confidence)
    if seeds > 1 and variance > 0:
        size = min(max(p * (1 - p) / variance, 1.0), float(items * seeds))
        z = max(z, half / math.sqrt(variance))
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    width = z * math.sqrt(p * (1 - p) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    name = "wilson" if seeds == 1 else "wilson, crossed seeds and items"
    low, high = max(0.0, min(p, centre - width)), min(1.0, max(p, centre + width))
    return Interval(p, low, high, name, seeds, items, confidence)


def difference_interval(first: Array, second: Array, confidence: float = 0.95) -> Interval:
    """The interval of accuracy(first) − accuracy(second), paired by seed and item.

    Its half-width is at least z²/(I + z²), Wilson's for a difference never seen in I items. Outcomes that agree on
    every item, or disagree on every item, still leave the items that were not asked.

    Args:
        first: shares of right samples, seeds × items.
        second: those of the same seeds and items in the same order; a single row is a fixed reference, such as the
            untrained base.
        confidence: the two-sided confidence.

    Raises:
        ValueError: the shapes cannot be paired.
    """
    if second.shape[1] != first.shape[1] or second.shape[0] not in (1, first.shape[0]):
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} cannot be paired")
    difference = first - second
    seeds, items = difference.shape
    half, _ = _crossed_half_width(difference, confidence)
    z = _normal_quantile(confidence)
    half = max(half, z * z / (items + z * z))
    mean = float(difference.mean())
    name = "paired items" if seeds == 1 else "paired, crossed seeds and items"
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half), name, seeds, items, confidence)
