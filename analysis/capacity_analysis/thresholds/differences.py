"""Mean accuracies of several curves minus one target, with the covariance of their errors.

The errors have three causes, and each estimator takes all of them together:

- *Seeds*: what differs between runs of a cell. Runs of one seed are alike: they share projections, data and evaluation
  draws. So a part of the error is common to all runs of a seed, and a further part to runs of one size.
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
from capacity_analysis.types import Array

# The pooled variances count as much as the deviations of so many further seeds; see `Differences.variance`.
PRIOR_SEEDS = 4.0
_MOST_ALIKE = 0.95
_IGNORED = 100.0


@dataclass(frozen=True)
class Differences:
    """Curves minus the target, one after the other along M.

    Attributes:
        log_sizes: the sizes of each curve.
        z: mean accuracies minus the target, N × M.
        pooled: the covariance of `z` through what single runs of a seed have of their own, N × M × M.
        common: the covariance of `z` through what all runs of a seed share, N × M × M.
        known: the covariance of `z` through errors whose size is known, N × M × M.
        curve_df: the degrees of freedom of `pooled` from the seeds of each curve, one N-vector a curve.
        runs: the deviation of each seed from the mean of `z`, N × M × S. It is scaled so that the sum of squares over
            seeds is the variance of the mean.
        seeds_df: the degrees of freedom of that sum; 0 if no size has several seeds.
    """

    log_sizes: tuple[Array, ...]
    z: Array
    pooled: Array
    common: Array
    known: Array
    curve_df: tuple[Array, ...]
    runs: Array
    seeds_df: int

    @property
    def covariance(self) -> Array:
        """The covariance of `z`, N × M × M."""
        return self.pooled + self.common + self.known

    @property
    def deviations(self) -> Array:
        """Standard errors, N × M."""
        return np.asarray(np.sqrt(np.einsum("nkk->nk", self.covariance)))

    @property
    def df(self) -> Array:
        """The degrees of freedom of `pooled`, N: those of all curves together."""
        return np.asarray(np.sum(self.curve_df, axis=0))

    @property
    def size_df(self) -> Array:
        """The degrees of freedom of the variance of a single size, N."""
        pooled, common, known = (np.einsum("nkk->nk", c).mean(1) for c in (self.pooled, self.common, self.known))
        return combined_df(pooled + common, _satterthwaite((pooled, self.df), (common, self._shared_df)), known)

    @property
    def _shared_df(self) -> Array:
        return np.full(len(self.z), float(max(self.seeds_df, 1)))

    def take(self, *curves: int) -> "Differences":
        """Returns some of the curves."""
        ends = np.cumsum([0, *(len(sizes) for sizes in self.log_sizes)])
        at = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in curves])
        pooled, common, known = (c[:, at][:, :, at] for c in (self.pooled, self.common, self.known))
        sizes, df = tuple(self.log_sizes[i] for i in curves), tuple(self.curve_df[i] for i in curves)
        return Differences(sizes, self.z[:, at], pooled, common, known, df, self.runs[:, at], self.seeds_df)

    def rows(self, rows: NDArray[np.intp]) -> "Differences":
        """Returns some of the data sets."""
        pooled, common, known, runs = (part[rows] for part in (self.pooled, self.common, self.known, self.runs))
        df = tuple(part[rows] for part in self.curve_df)
        return Differences(self.log_sizes, self.z[rows], pooled, common, known, df, runs, self.seeds_df)

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
        n = len(shifts)
        pooled, common, known, runs = (
            np.repeat(part, n, axis=0) for part in (self.pooled, self.common, self.known, self.runs)
        )
        df = tuple(np.repeat(part, n) for part in self.curve_df)
        return Differences(self.log_sizes, self.z + shifts[:, None], pooled, common, known, df, runs, self.seeds_df)

    def variance(self, weights: Array) -> tuple[Array, Array, Array]:
        """The variance of Σ weights · z, its degrees of freedom, and the variance that `covariance` implies; N each.

        The pooled variances take every size of a curve to spread alike. The seeds' own sums tell their spread whatever
        its pattern, but with few degrees of freedom. The variance is a mean of both. Its weights are the degrees of
        freedom of the seeds, and `PRIOR_SEEDS` for the pooled ones. The latter is made smaller by an F test where the
        seeds' sums spread more than the pooled variances imply.

        Args:
            weights: N × M.
        """
        pooled, common, known = (
            np.einsum("nk,nkl,nl->n", weights, c, weights) for c in (self.pooled, self.common, self.known)
        )
        implied = pooled + common + known
        if self.seeds_df == 0:
            return implied, combined_df(pooled + common, self.df, known), implied
        own = (np.einsum("nk,nks->ns", weights, self.runs) ** 2).sum(1)

        ratio = np.divide(own, pooled + common, out=np.ones_like(own), where=pooled + common > 0)
        doubt = f_tail(ratio, float(self.seeds_df), self.df)
        share = self.seeds_df / (self.seeds_df + PRIOR_SEEDS * np.minimum(1.0, 2 * doubt))
        between = share * own + (1 - share) * (pooled + common)
        df = _satterthwaite((share * own + (1 - share) * common, self._shared_df), ((1 - share) * pooled, self.df))
        return between + known, combined_df(between, df, known), implied


def _satterthwaite(*parts: tuple[Array, Array]) -> Array:
    """The degrees of freedom of a sum of independent variances, each given with its own, N."""
    total = np.sum([variance for variance, _ in parts], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = total**2 / np.sum([variance**2 / df for variance, df in parts], axis=0)
    return np.where(total > 0, found, np.inf)


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
    between = np.concatenate([s.between for s in spreads], axis=1)
    rounding = np.concatenate([s.rounding for s in spreads], axis=1)
    n, m = means.shape
    runs, shared, seeds_df = _runs(spreads, seeds)
    alike, at_size = _alike(runs, np.sqrt(between), np.concatenate(log_sizes), shared, seeds_df)
    scale = np.sqrt(between)[:, :, None] * np.sqrt(between)[:, None, :]
    eye, same = np.eye(m), _same_size(np.concatenate(log_sizes))
    common = scale * alike[:, None, None] * np.where(eye > 0, 1.0, shared)
    pooled = scale * ((1 - alike)[:, None, None] * eye + at_size[:, None, None] * same * shared)
    known = rounding[:, :, None] * eye
    moved = np.eye(m)
    moved[:, aim.ceiling] -= aim.share
    pooled, common, known = (moved @ part @ moved.T for part in (pooled, common, known))
    known = known + np.broadcast_to(aim.variance, (n,))[:, None, None]
    if items is not None:
        known = known + items
    return Differences(
        tuple(log_sizes), means - aim.accuracy[:, None], pooled, common, known, tuple(s.between_df for s in spreads),
        moved @ runs, seeds_df,
    )  # fmt: skip


def _runs(spreads: Sequence[Spread], seeds: Sequence[Sequence[int] | None]) -> tuple[Array, Array, int]:
    """The scaled deviations, N × M × S; the share of common seeds of two sizes, M × M; and degrees of freedom.

    A curve whose seeds are not known has columns of its own, so it is paired with no other.
    """
    names: list[tuple[int, int]] = []
    columns: list[list[tuple[int, int]]] = []
    for place, (spread, own) in enumerate(zip(spreads, seeds, strict=True)):
        count = spread.deviations.shape[2]
        columns.append([(-1, int(s)) for s in own] if own is not None else [(place, i) for i in range(count)])
        names += [name for name in columns[-1] if name not in names]
    rows, there, groups = [], [], set()
    for spread, named in zip(spreads, columns, strict=True):
        at = [names.index(name) for name in named]
        known = ~np.isnan(spread.deviations[0])
        count_of = known.sum(1)
        scale = np.sqrt(np.maximum(count_of * (count_of - 1), 1))
        wide = np.zeros((*spread.deviations.shape[:2], len(names)))
        wide[:, :, at] = np.nan_to_num(spread.deviations) / scale[None, :, None]
        rows.append(wide)
        has_run = np.zeros((len(known), len(names)), dtype=bool)
        has_run[:, at] = known
        there.append(has_run)
        if (count_of > 1).any():
            groups.add(named[0][0])
    has = np.concatenate(there).astype(float)
    counts = has.sum(1)
    shared = (has @ has.T) / np.sqrt(counts[:, None] * counts[None, :])
    return np.concatenate(rows, axis=1), shared, int(len(names) - max(len(groups), 1)) if groups else 0


def _same_size(log_sizes: Array) -> NDArray[np.bool_]:
    apart = np.abs(log_sizes[:, None] - log_sizes[None, :])
    return (apart < 1e-9) & ~np.eye(len(log_sizes), dtype=bool)


def _alike(runs: Array, errors: Array, log_sizes: Array, shared: Array, seeds_df: int) -> tuple[Array, Array]:
    """The correlation of runs of one seed at different sizes, and how much larger it is at equal sizes; N each.

    Both are pooled over all sizes of all curves. The first is 0 or above. The second is shrunk towards 0 by its own
    error.
    """
    n = len(runs)
    if seeds_df < 1:
        return np.zeros(n), np.zeros(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = np.where(errors[:, :, None] > 0, runs / errors[:, :, None], 0.0)
    products = standard @ np.swapaxes(standard, 1, 2)
    same = _same_size(log_sizes)
    other = ~same & ~np.eye(len(log_sizes), dtype=bool)
    weight = (shared * other).sum()
    alike = np.clip((products * other).sum((1, 2)) / weight, 0.0, _MOST_ALIKE) if weight > 0 else np.zeros(n)
    weight = (shared * same).sum()
    if weight == 0:
        return alike, np.zeros(n)
    excess = (products * same).sum((1, 2)) / weight - alike
    noise = 2.0 / (weight * seeds_df)
    most = _MOST_ALIKE * (1 - alike)
    return alike, np.clip(excess**3 / (excess**2 + noise), -most / max(same.sum(1).max(), 1), most)
