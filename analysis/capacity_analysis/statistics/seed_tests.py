"""Tests of a change in accuracy when only seeds are random: the items are those that were asked.

Accuracies form a matrix of seeds × sizes. The estimand is the unweighted mean over sizes of the accuracy difference
new − old. A seed draws prompts and projections for all sizes at once, so the sizes of one seed may move together.
Therefore the unit is the seed, and its mean over sizes is one observation. The t interval that pools the seed variance
over sizes is narrower at few seeds. It alarms falsely three times too often when sizes move together or differ in
spread (docs/ci.md has the figures).
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit, logit, ndtr

from capacity_analysis.types import Array

EXACT_ARRANGEMENTS = 20_000
RANDOM_ARRANGEMENTS = 9_999
_NODES = 200


@dataclass(frozen=True)
class MeanChange:
    """The mean change over sizes, as a share of 1, with its interval.

    Attributes:
        alpha: the one-sided error at each end of the interval.
        p_worse: p-value of "the mean did not fall" against "it fell".
        p_inferior: p-value of "it fell by the margin or more" against "it fell by less".
        seeds: the number of seeds of the new study.
    """

    estimate: float
    low: float
    high: float
    alpha: float
    standard_error: float
    df: float
    p_worse: float
    p_inferior: float
    method: str
    seeds: int


@dataclass(frozen=True)
class SizeChange:
    """The change of accuracy at one size with its interval; the intervals of all sizes hold together."""

    before: float
    after: float
    low: float
    high: float

    @property
    def estimate(self) -> float:
        """The accuracy after minus the accuracy before."""
        return self.after - self.before


@dataclass(frozen=True)
class Permutation:
    """The p-value of "the mean fell", or of "it moved" if two-sided, and the smallest one that these seeds can show."""

    p: float
    smallest: float
    arrangements: int


def mean_change(
    new: Array, old: Array, *, paired: bool, margin: float, alpha: float, resolution: float = 0.0
) -> MeanChange:
    """Student's t test on the seeds' means over sizes, or Welch's if the seeds of the two studies differ.

    Args:
        new: accuracies in [0, 1], seeds × sizes.
        old: those of the same sizes, and of the same seeds in the same order if `paired`.
        paired: rows in the same place are the same seed.
        margin: the largest drop that is tolerated, as a share of 1.
        alpha: the one-sided error.
        resolution: the accuracy that one answer makes at one size; a smaller spread is not believed.

    Raises:
        ValueError: there are fewer than two seeds, or the shapes do not belong together.
    """
    if min(len(new), len(old)) < 2 or new.shape[1] != old.shape[1] or (paired and new.shape != old.shape):
        raise ValueError(f"accuracies of shapes {new.shape} and {old.shape} cannot be compared")
    floor = (resolution / math.sqrt(new.shape[1])) ** 2
    estimate = float(new.mean() - old.mean())
    if paired:
        seeds = (new - old).mean(1)
        variance, df = max(float(seeds.var(ddof=1)), floor) / len(seeds), float(len(seeds) - 1)
    else:
        a, b = (max(float(x.mean(1).var(ddof=1)), floor) / len(x) for x in (new, old))
        variance = a + b
        # Welch (Biometrika 1947) and Satterthwaite (Biometrics 1946).
        df = variance**2 / (a**2 / (len(new) - 1) + b**2 / (len(old) - 1)) if variance else float(len(new) - 1)
    error = math.sqrt(variance)
    half = float(stats.t.ppf(1 - alpha, df)) * error
    return MeanChange(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        alpha=alpha,
        standard_error=error,
        df=df,
        p_worse=_lower_tail(estimate, error, df),
        p_inferior=_lower_tail(-(estimate + margin), error, df),
        method="t of seed means, paired by seed" if paired else "Welch's t of seed means",
        seeds=len(new),
    )


def _lower_tail(value: float, error: float, df: float) -> float:
    if error == 0:
        return 0.0 if value < 0 else 1.0
    return float(stats.t.cdf(value / error, df))


def permutation_test(
    new: Array, old: Array, *, paired: bool, generator: np.random.Generator, two_sided: bool = False
) -> Permutation:
    """The permutation test that exchanges seeds jointly over sizes.

    With pairs it changes their signs, with two samples it changes which seed belongs to which study. It takes all
    arrangements if they are at most `EXACT_ARRANGEMENTS`, else the one seen and `RANDOM_ARRANGEMENTS` random ones. The
    smallest p is 2⁻ᵐ for m pairs and 1/C(m + n, m) for two samples; for pairs it is twice that if two-sided.

    Args:
        new: accuracies, seeds × sizes.
        old: those of the same sizes, and of the same seeds in the same order if `paired`.
        paired: rows in the same place are the same seed.
        generator: draws the random arrangements.
        two_sided: test a change in either direction; for pairs only.

    Raises:
        ValueError: a two-sided test of two samples is asked for.
    """
    if two_sided and not paired:
        raise ValueError("the two-sided test is for pairs")
    a, b = new.mean(1), old.mean(1)
    count = 2 ** len(a) if paired else math.comb(len(a) + len(b), len(a))
    exact = count <= EXACT_ARRANGEMENTS
    if paired:
        signs = (
            np.array(list(product((1.0, -1.0), repeat=len(a))))
            if exact
            else generator.choice((1.0, -1.0), (RANDOM_ARRANGEMENTS, len(a)))
        )
        values, seen = signs @ (a - b) / len(a), float((a - b).mean())
    else:
        together = np.concatenate([a, b])
        chosen = (
            np.array(list(combinations(range(len(together)), len(a))))
            if exact
            else np.array([generator.permutation(len(together))[: len(a)] for _ in range(RANDOM_ARRANGEMENTS)])
        )
        first = together[chosen].sum(1)
        values = first / len(a) - (together.sum() - first) / len(b)
        seen = float(a.mean() - b.mean())
    # Sums of the same numbers in another order differ in the last digits.
    as_far = int(((np.abs(values) >= abs(seen) - 1e-12) if two_sided else values <= seen + 1e-12).sum())
    if exact:
        return Permutation(as_far / count, (2 if two_sided else 1) / count, count)
    return Permutation((as_far + 1) / (RANDOM_ARRANGEMENTS + 1), 1 / (RANDOM_ARRANGEMENTS + 1), RANDOM_ARRANGEMENTS)


def size_changes(new: Array, old: Array, answers: NDArray[np.int64], *, paired: bool, alpha: float) -> list[SizeChange]:
    """The change at each size in intervals that hold for all sizes together (max-T), made on logits.

    Logits are those of right + ½ and wrong + ½ answers. Each size's seed variance counts as no less than the mean over
    sizes, which steadies the estimate of few seeds. The degrees of freedom are Satterthwaite's for that mean. The
    quantile is that of the largest of K independent |t| with one common variance (studentized maximum modulus). It is
    an upper bound for dependent ones (Šidák, JASA 1967).

    Args:
        new: accuracies, seeds × K.
        old: those of the same sizes, and of the same seeds in the same order if `paired`.
        answers: the number of answers behind an accuracy of each size, K.
        paired: rows in the same place are the same seed.
        alpha: the error of the band as a whole.
    """
    x, y = (logit((a * answers + 0.5) / (answers + 1)) for a in (new, old))
    if paired:
        parts, dfs = [(x - y).var(0, ddof=1) / len(x)], [len(x) - 1]
    else:
        parts, dfs = [x.var(0, ddof=1) / len(x), y.var(0, ddof=1) / len(y)], [len(x) - 1, len(y) - 1]
    variance = np.sum(parts, axis=0)
    weights = sum(float((part**2).sum()) / df for part, df in zip(parts, dfs, strict=True))
    df = float(variance.sum() ** 2 / weights) if weights > 0 else float(sum(dfs))
    # One answer, at the accuracy of the old study, is the least spread that is believed.
    p = (old.mean(0) * answers + 0.5) / (answers + 1)
    floor = (1 / (answers * p * (1 - p))) ** 2 / len(new)
    error = np.sqrt(np.maximum(np.maximum(variance, variance.mean()), floor))
    # Rounded down, on the safe side, so that many checks need few quantiles.
    half = maximum_modulus(1 - alpha, new.shape[1], max(1.0, math.floor(2 * df) / 2)) * error
    before, shift = old.mean(0), (x.mean(0) - y.mean(0))
    start = logit(p)
    changes = []
    for k in range(new.shape[1]):
        low, high = (float(expit(start[k] + shift[k] + sign * half[k]) - p[k]) for sign in (-1, 1))
        changes.append(SizeChange(float(before[k]), float(new[:, k].mean()), low, high))
    return changes


@cache
def maximum_modulus(confidence: float, count: int, df: float) -> float:
    """The quantile of max |Zᵢ|/S for `count` independent normals and one S² = χ²(df)/df (Stoline & Ury, 1979)."""
    if count == 1:
        return float(stats.t.ppf(0.5 + confidence / 2, df))
    s, weight = scaled_chi(df)

    def excess(quantile: float) -> float:
        return float(weight @ (2 * ndtr(quantile * s) - 1) ** count) - confidence

    # Between one |t| and Bonferroni's bound for all of them.
    low = float(stats.t.ppf(0.5 + confidence / 2, df))
    high = float(stats.t.ppf(1 - (1 - confidence) / (2 * count), df))
    return float(optimize.brentq(excess, 0.99 * low, 1.01 * high, xtol=1e-6))


def scaled_chi(df: float, kink: float = 0.0) -> tuple[Array, Array]:
    """Nodes and weights for expectations over S with S² = χ²(df)/df, Gauss–Legendre on either side of `kink`."""
    scale = 1 / math.sqrt(df)
    low, high = (float(end) for end in stats.chi.ppf((1e-12, 1 - 1e-12), df, scale=scale))
    middle = min(max(kink, low), high)
    nodes, weights = _legendre()
    parts = [(a + (b - a) * (nodes + 1) / 2, weights * (b - a) / 2) for a, b in ((low, middle), (middle, high))]
    s = np.concatenate([part[0] for part in parts])
    return s, np.concatenate([part[1] for part in parts]) * stats.chi.pdf(s, df, scale=scale)


@cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = leggauss(_NODES)
    return nodes, weights


def power(drop: float, standard_error: float, df: float, margin: float, level: float) -> float:
    """The probability that a true drop is called "worse": found significant at `level`, and larger than the margin.

    Args:
        drop: the true mean drop over sizes, as a share of 1.
        standard_error: that of the mean change.
        df: the degrees of freedom of that standard error.
        margin: the largest drop that is tolerated, as a share of 1.
        level: the one-sided level of the test.
    """
    if standard_error == 0:
        return float(drop > margin)
    quantile = float(stats.t.ppf(1 - level, df))
    s, weight = scaled_chi(df, margin / (quantile * standard_error))
    least = np.maximum(margin, quantile * s * standard_error)
    return min(1.0, float(weight @ ndtr((drop - least) / standard_error)))


def smallest_drop(standard_error: float, df: float, margin: float, level: float, wanted: float = 0.8) -> float | None:
    """The true drop that is called "worse" with probability `wanted`; None if even a drop to nothing is not."""

    def lacking(drop: float) -> float:
        return power(drop, standard_error, df, margin, level) - wanted

    if lacking(1.0) < 0:
        return None
    return float(optimize.brentq(lacking, 0.0, 1.0, xtol=1e-5)) if standard_error > 0 else margin


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p of McNemar's test: `lost` answers were right before, `gained` answers are right now."""
    return float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def dispersion(accuracies: Array, answers: NDArray[np.int64]) -> float | None:
    """The variance between seeds over that of a binomial, pooled over sizes; None if no answer can vary.

    It is below 1 for a fixed set of items of unequal difficulty, and above 1 when seeds end in different places.
    """
    p = accuracies.mean(0)
    expected = float((p * (1 - p) / answers).sum())
    return float(accuracies.var(0, ddof=1).sum()) / expected if expected > 0 and len(accuracies) > 1 else None
