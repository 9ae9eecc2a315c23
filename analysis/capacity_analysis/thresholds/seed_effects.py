"""What runs of one seed share: a covariance of mean accuracies in parts, and how well it is known.

The error of a run is a sum of four effects. The *level* moves all accuracies of a seed alike. The *shift* moves the
curve of a seed along log size: another projection P needs more parameters, or fewer. Its error is large where the
curve is steep. An effect of *one size* is shared by runs of two curves at that size. The rest is the run's *own*.

`capacity_analysis.thresholds.seed_components` estimates their variances.

Shapes: N data sets, M sizes of all curves, S seeds, P linear combinations of the means that are wanted.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.types import Array


@dataclass(frozen=True)
class SeedEffects:
    """The covariance of means through what differs between seeds, in parts of N × M × M that add up.

    Attributes:
        own: what single runs of a seed have of their own, with what runs of two curves at one size share.
        level: what moves all runs of a seed alike.
        shift: what moves the curve of a seed along log size.
        errors: the standard error of each mean, N × M.
        unpooled: the share of each variance that the seeds of its size tell alone, N × M.
        steep: the slope of the curve at each size, N × M.
        curve: the number of the curve of each mean, M.
        runs: the deviation of each seed from the mean, N × M × S. It is scaled so that the sum of squares over seeds is
            the variance of the mean.
        df: the degrees of freedom of that sum; 0 if no size has several seeds.
        run_df: the runs of each mean less one, M.
        paired: which means have seeds in common, M × M.
        wanted: the linear combinations of the means that all results are for, P × M.
    """

    own: Array
    level: Array
    shift: Array
    errors: Array
    unpooled: Array
    steep: Array
    curve: NDArray[np.intp]
    runs: Array
    df: int
    run_df: Array
    paired: NDArray[np.bool_]
    wanted: Array

    @property
    def covariance(self) -> Array:
        """The covariance of what is wanted, N × P × P."""
        return np.asarray(self.wanted @ self._of_means @ self.wanted.T)

    @property
    def _of_means(self) -> Array:
        return self.own + self.level + self.shift

    def at(self, places: NDArray[np.intp]) -> "SeedEffects":
        """Returns the effects on some of what is wanted."""
        return replace(self, wanted=self.wanted[places])

    def rows(self, rows: NDArray[np.intp]) -> "SeedEffects":
        """Returns the effects of some of the data sets."""
        names = "own", "level", "shift", "errors", "unpooled", "steep", "runs"
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def against(self, wanted: Array) -> "SeedEffects":
        """Returns the effects on linear combinations of the means, P × M."""
        return replace(self, wanted=wanted)

    def variance(self, weights: Array) -> Array:
        """The variance of sums of what is wanted, N, by their weights, N × P."""
        on_means = weights @ self.wanted
        return np.asarray(np.einsum("nk,nkl,nl->n", on_means, self._of_means, on_means))

    def shift_share(self, weights: Array) -> Array:
        """The share of `variance` that the shift has, N."""
        on_means = weights @ self.wanted
        return _ratio(np.einsum("nk,nkl,nl->n", on_means, self.shift, on_means), self.variance(weights))

    def unpooled_share(self, weights: Array) -> Array:
        """The share of `variance` that the seeds of single sizes tell alone, N."""
        on_means = weights @ self.wanted
        alone = (self.unpooled * np.einsum("nkk->nk", self.own) * on_means**2).sum(1)
        return np.minimum(_ratio(alone, self.variance(weights)), 1.0)

    def squares(self, weights: Array) -> Array:
        """The same by the sums of each seed alone, N: right for every pattern, with few degrees of freedom."""
        return np.asarray((np.einsum("nk,nks->ns", weights @ self.wanted, self.runs) ** 2).sum(1))

    def variance_df(self, weights: Array, share: Array | float) -> Array:
        """Satterthwaite's degrees of freedom of share · `squares` + (1 − share) · `variance`, N.

        The sum is about linear in the seeds' matrix of sums of squares and products, tr(A W). For normal seeds it has
        ν (tr A Σ)² / tr(A Σ A Σ) degrees of freedom. In A, squares have the weights themselves. An own effect has the
        sum over sizes of its curve, and for its unpooled share that size alone. The level has the sum of all sizes, and
        the shift has the slopes of each curve. Where sizes differ in runs, ν of a product is the geometric mean of the
        two. In the sum of a curve, sizes with more runs have more weight.

        Args:
            weights: of the sums of what is wanted, N × P.
            share: that of the squares, N.
        """
        on_means = weights @ self.wanted
        products = np.einsum("nk,nl->nkl", on_means, on_means)
        return self._df(products, share)

    def size_df(self) -> Array:
        """The degrees of freedom of the variance of one of what is wanted, in the mean, N."""
        products = (self.wanted.T @ self.wanted) / len(self.wanted)
        return self._df(np.broadcast_to(products, self.own.shape), 0.0)

    def _df(self, products: Array, share: Array | float) -> Array:
        """Those of the mean variance of sums whose weights have these products on average, N × M × M."""
        sigma, told = self._of_means, self.run_df > 0
        weight_of = self.run_df * (self.run_df + 1)
        matrix = np.zeros_like(sigma)
        for c in range(int(self.curve.max()) + 1):
            here = self.curve == c
            own = (1 - self.unpooled[:, here])[:, :, None] * self.own[:, here]
            size = np.where(here, weight_of, 0.0)
            part = np.einsum("nkl,nkl->n", products[:, here], own)
            pooled = _ratio(part, np.einsum("nkk,k->n", sigma, size))[:, None] * size
            alone = self.unpooled * here * np.einsum("nkk->nk", products)
            matrix += (pooled + alone)[:, :, None] * np.eye(len(here))
            slopes = np.where(here & told, self.steep, 0.0)
            part = np.einsum("nkl,nkl->n", products[:, here][:, :, here], self.shift[:, here][:, :, here])
            matrix += _along(slopes, sigma, part)
        standard = told / np.where(self.errors > 0, self.errors, np.inf)
        matrix += _along(standard, sigma, np.einsum("nkl,nkl->n", products, self.level))
        weight = np.broadcast_to(np.asarray(share), len(sigma))[:, None, None]
        matrix = weight * products * self.paired + (1 - weight) * matrix
        moved = matrix @ sigma
        # The expected square of tr(A W) about its mean: the products of each size are told by its own runs.
        root = np.maximum(self.run_df, 1.0) ** -0.25
        told_by = matrix @ (sigma * root[:, None] * root)
        square = np.einsum("nkl,nlk->n", told_by, told_by)
        return np.where(square > 0, _ratio(np.einsum("nkk->n", moved) ** 2, square), np.inf)


def _along(direction: Array, sigma: Array, amount: Array) -> Array:
    """The matrix A along one direction that has tr(A Σ) = amount, N × M × M."""
    scale = _ratio(amount, np.einsum("nk,nkl,nl->n", direction, sigma, direction))
    return np.asarray(scale[:, None, None] * np.einsum("nk,nl->nkl", direction, direction))


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
