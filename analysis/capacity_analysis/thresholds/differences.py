"""Mean accuracies of several curves minus one target, with the covariance of their errors.

The errors have three causes, and each estimator takes all of them together:

- *Seeds*: what differs between runs of a cell, see `capacity_analysis.thresholds.seed_effects`.
- *Known errors*: the rounding of counts, the base's own answers, and the items or draws that all runs share.
- *The target*: a share of the way from the base to a measured ceiling moves with both of them.

Shapes: N data sets, M sizes of all curves, S seeds. Sizes are log10.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.spread import Spread, combined_df
from capacity_analysis.statistics.tails import f_tail
from capacity_analysis.thresholds.seed_components import seed_effects
from capacity_analysis.thresholds.seed_effects import SeedEffects
from capacity_analysis.types import Array

# The pooled variances count as much as the deviations of so many further seeds; see `Differences.variance`.
PRIOR_SEEDS = 8.0
_IGNORED = 100.0


@dataclass(frozen=True)
class Differences:
    """Curves minus the target, one after the other along M.

    Attributes:
        log_sizes: the sizes of each curve.
        z: mean accuracies minus the target, N × M.
        seeds: the covariance of `z` through seeds, in its parts.
        known: the covariance of `z` through errors whose size is known, N × M × M.
    """

    log_sizes: tuple[Array, ...]
    z: Array
    seeds: SeedEffects
    known: Array

    @property
    def covariance(self) -> Array:
        """The covariance of `z`, N × M × M."""
        return self.seeds.covariance + self.known

    @property
    def deviations(self) -> Array:
        """Standard errors, N × M."""
        return np.asarray(np.sqrt(np.einsum("nkk->nk", self.covariance)))

    @property
    def size_df(self) -> Array:
        """The degrees of freedom of the variance of a single size, N."""
        between = np.einsum("nkk->nk", self.seeds.covariance).mean(1)
        df = np.full(len(between), np.inf) if self.seeds.df == 0 else self.seeds.size_df()
        return combined_df(between, df, np.einsum("nkk->nk", self.known).mean(1))

    def take(self, *curves: int) -> "Differences":
        """Returns some of the curves."""
        ends = np.cumsum([0, *(len(sizes) for sizes in self.log_sizes)])
        at = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in curves])
        sizes = tuple(self.log_sizes[i] for i in curves)
        return Differences(sizes, self.z[:, at], self.seeds.at(at), self.known[:, at][:, :, at])

    def rows(self, rows: NDArray[np.intp]) -> "Differences":
        """Returns some of the data sets; a row may be taken several times."""
        return Differences(self.log_sizes, self.z[rows], self.seeds.rows(rows), self.known[rows])

    def without(self, ignored: NDArray[np.bool_]) -> "Differences":
        """Returns the data with sizes that say nothing: their variance is far above what accuracies can differ by.

        Args:
            ignored: the sizes of each data set, N × M.
        """
        known = self.known + _IGNORED * ignored[:, :, None] * np.eye(self.z.shape[1])
        return replace(self, known=known)

    def moved(self, shifts: Array) -> "Differences":
        """Returns N copies of one data set with their targets moved.

        Args:
            shifts: what is added to every difference of each copy, N.
        """
        copies = self.rows(np.zeros(len(shifts), dtype=np.intp))
        return replace(copies, z=copies.z + shifts[:, None])

    def variance(self, weights: Array) -> tuple[Array, Array, Array]:
        """The variance of Σ weights · z, its degrees of freedom, and the variance that `covariance` implies; N each.

        The covariance takes the spread of a curve to have one pattern over sizes. The seeds' own sums tell their spread
        whatever its pattern, but with few degrees of freedom. The variance is a mean of both. Its weights are the
        degrees of freedom of the seeds, and `PRIOR_SEEDS` for the covariance. The latter is made smaller by an F test
        where the seeds' sums spread more than the covariance implies. It is made smaller by the share of the shift
        too, which is told by the same few seeds as the sums. The same holds for variances of single sizes that are not
        pooled.

        Args:
            weights: N × M.
        """
        known = np.einsum("nk,nkl,nl->n", weights, self.known, weights)
        seeds = self.seeds.variance(weights)
        implied = seeds + known
        if self.seeds.df == 0:
            return implied, np.full(len(implied), np.inf), implied
        squares = self.seeds.squares(weights)
        ratio = np.divide(squares, seeds, out=np.ones_like(squares), where=seeds > 0)
        doubt = f_tail(ratio, float(self.seeds.df), self.seeds.variance_df(weights, 0.0))
        pooled = (1 - self.seeds.shift_share(weights)) ** 2 * (1 - self.seeds.unpooled_share(weights))
        prior = PRIOR_SEEDS * np.minimum(1.0, 2 * doubt) * pooled
        share = self.seeds.df / (self.seeds.df + prior)
        between = share * squares + (1 - share) * seeds
        return between + known, combined_df(between, self.seeds.variance_df(weights, share), known), implied


@dataclass(frozen=True)
class Aim:
    """What curves are compared with.

    Attributes:
        accuracy: the target of each data set, N.
        share: how far the target moves with the ceiling; 0 for an absolute target or a ceiling that is given.
        ceiling: the place of the ceiling among all sizes of all curves.
        variance: the variance of the target through the base, N.
    """

    accuracy: Array
    share: float = 0.0
    ceiling: int = 0
    variance: Array | float = 0.0


def differences(
    log_sizes: Sequence[Array],
    spreads: Sequence[Spread],
    seeds: Sequence[Sequence[int] | None],
    aim: Aim,
    items: Array | None = None,
) -> Differences:
    """Several curves minus their target.

    Args:
        log_sizes: the sizes of each curve.
        spreads: the means of each curve with their errors.
        seeds: the seed of each column of a curve's deviations; None if the seeds of the curve are not known.
        aim: the target.
        items: the covariance of the differences through items or draws that all runs share, N × M × M.
    """
    means = np.concatenate([s.mean for s in spreads], axis=1)
    rounding = np.concatenate([s.rounding for s in spreads], axis=1)
    n, m = means.shape
    moved = np.eye(m)
    moved[:, aim.ceiling] -= aim.share
    known = moved @ (rounding[:, :, None] * np.eye(m)) @ moved.T
    known = known + np.broadcast_to(aim.variance, (n,))[:, None, None]
    if items is not None:
        known = known + items
    effects = seed_effects(log_sizes, spreads, seeds).against(moved)
    if items is not None:
        known = _definite(known, effects.covariance)
    return Differences(tuple(log_sizes), means - aim.accuracy[:, None], effects, known)


def _definite(known: Array, seeds: Array) -> Array:
    """Known errors that are a covariance together with that of the seeds, N × M × M.

    The scatter of answers is taken out of the covariance over items, as the seeds show it too. With few items more may
    be taken out than is there. Where both parts together are no covariance, the known part is replaced by the nearest
    covariance (Higham, Linear Algebra and its Applications 1988).

    Args:
        known: the covariance through known errors, N × M × M.
        seeds: that through seeds, N × M × M.
    """
    sound = np.asarray((np.linalg.eigvalsh(known + seeds) > 0).all(1))
    if sound.all():
        return known
    values, vectors = np.linalg.eigh(known)
    nearest = (vectors * np.clip(values, 0.0, None)[:, None]) @ vectors.transpose(0, 2, 1)
    return np.where(sound[:, None, None], known, nearest)
