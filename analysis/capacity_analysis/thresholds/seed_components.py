"""Variances of the effects of seeds, estimated over all sizes of all curves.

They are least-squares estimates from the products of the deviations of a seed at two sizes. This is estimation by
moments (Searle, Casella & McCulloch, "Variance Components", 1992, section 5.5). Each curve has a shift of its own size.

Shapes: N data sets, M sizes of all curves, S seeds. Sizes are log10.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.statistics.spread import Spread
from capacity_analysis.thresholds.seed_effects import SeedEffects
from capacity_analysis.types import Array

# The largest share of a variance that may be common to runs of a seed.
_MOST = 0.95
# A shift counts if it is larger than so many of its standard errors: chance would widen intervals of other curves.
_SHOWN = 3.0


def seed_effects(
    log_sizes: Sequence[Array], spreads: Sequence[Spread], seeds: Sequence[Sequence[int] | None]
) -> SeedEffects:
    """The effects of seeds on the means of several curves.

    Args:
        log_sizes: the sizes of each curve.
        spreads: the means of each curve with their errors.
        seeds: the seed of each column of a curve's deviations; None if the seeds of the curve are not known.
    """
    between = np.concatenate([s.between for s in spreads], axis=1)
    runs, shared, df = _runs(spreads, seeds)
    eye = np.eye(between.shape[1])
    curve = np.repeat(np.arange(len(log_sizes)), [len(sizes) for sizes in log_sizes])
    within = (curve[:, None] == curve).astype(float)
    at_size = _same_size(np.concatenate(log_sizes))
    errors = np.sqrt(between)
    scale = errors[:, :, None] * errors[:, None, :]
    steep = np.concatenate([_slopes(x, s.mean) for x, s in zip(log_sizes, spreads, strict=True)], axis=1)

    run_df = np.concatenate([(~np.isnan(s.deviations[0])).sum(1) - 1.0 for s in spreads])

    found = _components(runs, errors, steep, shared, curve, at_size, run_df, df)
    alike, together = found.alike, found.together
    # The shift is added to the pooled spread, not taken from it. A wrong shift would make other sizes look exact.
    room = _MOST * (1 - alike)
    excess = np.clip(found.excess, -room / max(at_size.sum(1).max(), 1), room)

    level = scale * alike[:, None, None] * np.where(eye > 0, 1.0, shared)
    own = between[:, :, None] * (1 - alike)[:, None, None] * eye + scale * excess[:, None, None] * at_size * shared
    joint = np.where(within > 0, 1.0, together[:, None, None]) * np.where(eye > 0, 1.0, shared)
    amount = steep * np.sqrt(found.moved[:, curve])
    shift = amount[:, :, None] * amount[:, None, :] * joint
    unpooled = np.concatenate([s.unpooled for s in spreads], axis=1)
    return SeedEffects(own, level, shift, errors, unpooled, steep, curve, runs, df, run_df, shared > 0, eye)


def _slopes(log_sizes: Array, means: Array) -> Array:
    """The slope of the means against log size, N × K; 0 for a single size.

    Inside it is the harmonic mean of the slopes to both neighbours, 0 where they differ in sign. That is small beside a
    steep part, as the curve is there, where the arithmetic mean is large (Fritsch & Butland, SIAM J. Sci. Stat. Comput.
    1984).
    """
    if len(log_sizes) < 2:
        return np.zeros_like(means)
    secants = np.diff(means, axis=1) / np.diff(log_sizes)
    before, after = secants[:, :-1], secants[:, 1:]
    product = before * after
    inside = np.divide(2 * product, before + after, out=np.zeros_like(product), where=product > 0)
    return np.concatenate([secants[:, :1], inside, secants[:, -1:]], axis=1)


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


@dataclass(frozen=True)
class _Components:
    """Estimates from the products of deviations at different sizes.

    Attributes:
        alike: the correlation of runs of one seed, N.
        excess: how much larger it is at equal sizes of two curves, N.
        moved: the variance of the shift of each of C curves in squared decades, N × C.
        together: the correlation of the shifts of two curves, N.
    """

    alike: Array
    excess: Array
    moved: Array
    together: Array


def _components(
    runs: Array,
    errors: Array,
    steep: Array,
    shared: Array,
    curve: NDArray[np.intp],
    at_size: NDArray[np.bool_],
    run_df: Array,
    df: int,
) -> _Components:
    """Least-squares estimates.

    Args:
        curve: the number of the curve of each mean, M.
        run_df: the runs of each mean less one, M. Products of sizes with few runs have little weight.
        df: of the seeds; for the others see `seed_effects`.
    """
    n, m = errors.shape
    curves = range(int(curve.max()) + 1)
    if df < 1:
        none = np.zeros(n)
        return _Components(none, none, np.zeros((n, len(curves))), none)
    # One unit for all curves: with units of their own, those that happen to scatter little would count most.
    unit = np.mean(errors**2, axis=1)[:, None, None]
    unit = np.where(unit > 0, unit, 1.0)
    products = runs @ np.swapaxes(runs, 1, 2) / unit
    along = steep[:, :, None] * steep[:, None, :] / unit
    scale = errors[:, :, None] * errors[:, None, :] / unit
    shared = np.where(np.eye(m) > 0, 1.0, shared)
    own = [along * (shared * np.outer(curve == c, curve == c)) for c in curves]
    across = along * (shared * (curve[:, None] != curve))
    alone, level, size = scale * np.eye(m), scale * shared, scale * (shared * at_size)
    root = np.sqrt(np.maximum(run_df, 0.0) / run_df.max())
    weights = root[:, None] * root
    found, noise = _fitted(products, (level, size, *own, across, alone), weights, df)
    each, noise_of_each = found[:, 2:-2], noise[:, 2:-2]
    weight = np.divide(1.0, noise_of_each, out=np.zeros_like(each), where=noise_of_each > 0)
    information = weight.sum(1)
    mean = np.divide((weight * each).sum(1), information, out=np.zeros(n), where=information > 0)
    error = np.divide(1.0, information, out=np.full(n, np.inf), where=information > 0)
    mean = np.where(mean > _SHOWN * np.sqrt(error), mean, 0.0)
    moved = np.where(mean[:, None] > 0, np.maximum(each, 0.0), 0.0)
    jointly = np.clip(_shrunk(found[:, -2], noise[:, -2]), 0.0, _MOST * mean)
    # What the shift leaves tells the other two, in units of each mean. So a shift of 0 does not disturb them.
    rest = products - sum(moved[:, c, None, None] * own[c] for c in curves) - jointly[:, None, None] * across
    rest = np.divide(rest, scale, out=np.zeros_like(rest), where=(scale > 0) & ~np.eye(m, dtype=bool))
    apart = np.where(np.eye(m) > 0, 0.0, shared)
    found, noise = _fitted(rest, [np.broadcast_to(part, rest.shape) for part in (apart, apart * at_size)], weights, df)
    together = np.divide(jointly, mean, out=np.zeros(n), where=mean > 0)
    alike = np.clip(found[:, 0], 0.0, _MOST)
    return _Components(alike, _shrunk(found[:, 1], noise[:, 1]), moved, together)


def _fitted(products: Array, columns: Sequence[Array], weights: Array, df: int) -> tuple[Array, Array]:
    """Least-squares coefficients of N regressions and their error variances, N × P; 0 for a column of zeros.

    Products of two sizes appear twice. Where seeds share nothing, one of weight 1 has the variance 1/df, and one of
    weight w has 1/(w df); squares have twice that.
    """
    n, root = len(products), np.sqrt(weights)
    design = np.stack([(root * column).reshape(n, -1) for column in columns], axis=2)
    target = (root * products).reshape(n, -1)
    # Columns of one length, so that a column of zeros can be told from a small one.
    length = np.sqrt((design**2).sum(1))
    per_length = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    design = design * per_length[:, None]
    inverse = np.linalg.pinv(np.swapaxes(design, 1, 2) @ design, rcond=1e-6, hermitian=True)
    found = np.einsum("npq,ncq,nc->np", inverse, design, target, optimize=True)
    return found * per_length, 2.0 * np.einsum("npp->np", inverse) / df * per_length**2


def _shrunk(value: Array, noise: Array) -> Array:
    """A value shrunk by its own error variance; 0 if it is not larger than that error (James & Stein 1961)."""
    size = value**2
    return np.where(size > noise, value * (1 - np.divide(noise, size, out=np.zeros_like(size), where=size > 0)), 0.0)
