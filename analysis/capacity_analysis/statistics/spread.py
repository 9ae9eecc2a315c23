"""How far the mean accuracy of each size may be from its expectation over seeds, with the spread pooled over sizes.

Arrays are N data sets × K sizes × S seeds, with NaN where a size has fewer seeds than others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.moderated import unpooled_share
from capacity_analysis.types import Array

Basis = Literal["seeds", "counts", "nothing"]


@dataclass(frozen=True)
class Spread:
    """The mean accuracies over seeds, and how far they may be from their expectation.

    Attributes:
        mean: the mean over seeds, N × K.
        between: the variance of that mean through what differs between seeds, N × K. It is NaN if neither counts nor
            seeds that differ say how large it is.
        rounding: its variance through the rounding to whole answers that the seeds share, N × K.
        between_df: the degrees of freedom of `between`, N; inf where it is not estimated from seeds.
        deviations: the deviation of each run from its mean, N × K × S.
        basis: what the variance rests on: several seeds of some size, the counts of one seed each, or nothing.
        unpooled: the share of `between` that the seeds of a size tell alone, N × K; all sizes tell the rest together.
    """

    mean: Array
    between: Array
    rounding: Array
    between_df: Array
    deviations: Array
    basis: Basis
    unpooled: Array

    @property
    def variance(self) -> Array:
        """The variance of the mean, N × K."""
        return self.between + self.rounding

    @property
    def df(self) -> Array:
        """The degrees of freedom of `variance`, N."""
        return combined_df(self.between.mean(1), self.between_df, self.rounding.mean(1))

    @property
    def known(self) -> bool:
        """Whether every mean has a variance."""
        return bool(np.isfinite(self.variance).all())


def spread_of_seeds(accuracy: Array, answers: Array | None) -> Spread:
    """The means over seeds with their pooled variances and degrees of freedom.

    With two seeds or more anywhere, the variance between seeds is pooled over the sizes in two ways. One is a number
    for all sizes, the other a multiple of the binomial variance p (1 − p). The first is right where training makes the
    spread, the second where sampling of answers does. Each has the weight of its likelihood at its own estimate, since
    both have one parameter. Where the seeds do not tell, each has about a half. The pooling makes three seeds enough
    for Student's t; a normal-theory bootstrap of three seeds covers 75 % instead of 95.

    Where sizes spread differently beyond chance, each variance moves from the pooled one towards that of its own seeds
    (`capacity_analysis.statistics.moderated`).

    With one seed everywhere the binomial variance of its answers is taken, and the spread between seeds is unknown.
    Where answers are not counted, seeds that agree say no more than one.

    Accuracies are whole counts. Seeds that scatter over many counts have rounding errors of their own, which are in the
    variance between them. Seeds that agree share one error, uniform over a step h between two counts. Its variance
    h²/12 shows in no difference between seeds, and more seeds do not make it smaller. Where rounded seeds differ with a
    variance s², the covariance of two of their errors is h²/12 · exp(−v − v²/3) with v = 12 s²/h². For normal seeds
    this is within 0.0016 h² of the exact one, (h²/2π²) Σ exp(−(2π k σ/h)²)/k². There s² = σ² + h²/12 − covariance
    (Widrow, Kollár & Liu, IEEE Transactions on Instrumentation and Measurement 1996).

    Args:
        accuracy: the accuracy of each run, N × K × S.
        answers: the number of answers that an accuracy of each size is a share of, K or N × K; None: unknown.
    """
    seeds = (~np.isnan(accuracy)).sum(2)
    least = np.nanmin(accuracy, axis=2)
    # The mean of equal numbers is off by a last digit, and no deviation may come of that.
    mean = np.where(least == np.nanmax(accuracy, axis=2), least, np.nanmean(accuracy, axis=2))
    deviations = accuracy - mean[:, :, None]
    df = int((seeds[0] - 1).sum())
    unknown, none = np.full(len(mean), np.inf), np.zeros_like(mean)
    if answers is None and not np.nansum(deviations**2).any():
        return Spread(mean, np.full_like(mean, np.nan), none, unknown, deviations, "nothing", none)
    if df == 0 and answers is not None:
        share = (mean * answers + 0.5) / (answers + 1.0)
        return Spread(mean, share * (1 - share) / answers, none, unknown, deviations, "counts", none)
    runs = seeds[0]
    own = np.nansum(deviations**2, axis=2)
    error = np.broadcast_to((1e-6 if answers is None else 1.0 / answers) ** 2 / 12.0, mean.shape)
    pooled = _pooled(own, runs - 1, mean * (1 - mean), error)
    unpooled = unpooled_share(own, pooled, runs - 1, error)
    within = (1 - unpooled) * pooled + unpooled * own / np.maximum(runs - 1, 1)
    of_size = 1.0 / ((1 - unpooled) ** 2 / df + unpooled**2 / np.maximum(runs - 1, 1))
    apart = within / error
    rounding = error * np.exp(-apart - apart**2 / 3.0)
    return Spread(mean, within / runs, rounding, of_size.mean(1), deviations, "seeds", unpooled)


def _pooled(squares: Array, df: NDArray[np.intp], binomial: Array, error: Array) -> Array:
    """The variance of one run at each size, N × K: one number and one multiple of p (1 − p), by their likelihoods.

    Args:
        squares: the sum of squared deviations at each size, N × K.
        df: the seeds of each size less one, K.
        binomial: p (1 − p), N × K.
        error: the variance of rounding, below which no variance counts as better, N × K.
    """
    total = (df * binomial).sum(1)
    multiple = np.divide(squares.sum(1), total, out=np.zeros_like(total), where=total > 0)
    either = np.repeat(squares.sum(1, keepdims=True) / df.sum(), len(df), axis=1), multiple[:, None] * binomial
    one, other = (-0.5 * (df * np.log(np.maximum(v, error)) + squares / np.maximum(v, error)).sum(1) for v in either)
    weight = 1.0 / (1.0 + np.exp(np.clip(other - one, -500.0, 500.0)))[:, None]
    return np.asarray(weight * either[0] + (1 - weight) * either[1])


def combined_df(estimated: Array, df: Array, known: Array) -> Array:
    """Satterthwaite's degrees of freedom of a variance plus another one that is as good as known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(estimated > 0, df * (1 + known / estimated) ** 2, np.inf)


def drawn_variance(spreads: Sequence[Spread]) -> Array:
    """The largest variance of one run's accuracy through the draws of its answers, as a multiple of p (1 − p), N.

    The variance between the seeds of a cell holds that of their draws and what training adds. It is inf where no cell
    has several seeds that differ.

    Args:
        spreads: of the curves of a study.
    """
    n = len(spreads[0].mean)
    squares, total = np.zeros(n), np.zeros(n)
    for spread in spreads:
        if spread.basis == "seeds":
            runs = (~np.isnan(spread.deviations[0])).sum(1)
            squares += np.nansum(spread.deviations**2, axis=(1, 2))
            total += ((runs - 1) * spread.mean * (1 - spread.mean)).sum(1)
    return np.asarray(np.divide(squares, total, out=np.full(n, np.inf), where=(total > 0) & (squares > 0)))


def residual_variance(outcomes: Array) -> float:
    """The part of the variance of a mean over S seeds × I items that is neither the seeds' nor the items', σ²/(S I).

    It is in the variance between seed means and in that between item means, so in their sum it is counted twice.

    Args:
        outcomes: shares of correct samples of one size, S × I.
    """
    seeds, items = outcomes.shape
    if seeds < 2:
        return 0.0
    rest = outcomes - outcomes.mean(0) - outcomes.mean(1, keepdims=True) + outcomes.mean()
    return float((rest**2).sum() / ((seeds - 1) * (items - 1)) / (seeds * items))
