"""What validation says of one curve: a posterior over Hill curves in log size, exact on a grid.

The method is that of QUEST+ (Watson, "QUEST+: A general multidimensional Bayesian adaptive psychometric method",
Journal of Vision 2017). Both limits of the curve are free, so that the upper one takes the part of a lapse rate.
"""

from dataclasses import dataclass

import numpy as np

from capacity_analysis.types import Array

SEED_SPREAD = 0.02  # the standard deviation of accuracy between seeds that a design reckons with
_LIMITS, _MIDPOINTS, _MARGIN, _BEYOND = 10, 33, 0.1, 1.0
_SLOPES = np.array([0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])


@dataclass(frozen=True)
class Curves:
    """Equally likely Hill curves, D of each parameter.

    Attributes:
        lower, upper: the limits of accuracy.
        midpoint: log10 of the size half-way between them.
        slope: the Hill coefficient.
    """

    lower: Array
    upper: Array
    midpoint: Array
    slope: Array

    def share(self, log_size: Array) -> Array:
        """The share of the way from the lower to the upper limit at log10 sizes, K or D × K; the result is D × K."""
        x = np.atleast_1d(log_size)
        exponent = np.clip(self.slope[:, None] * (self.midpoint[:, None] - x), -30, 30)
        return np.asarray(1 / (1 + 10**exponent))

    def accuracy(self, log_size: Array) -> Array:
        """The accuracy at log10 sizes, K or D × K; the result is D × K."""
        return self.lower[:, None] + (self.upper - self.lower)[:, None] * self.share(log_size)

    def threshold(self, target: Array | float) -> Array:
        """log10 of the size at which each curve reaches the target, D; ∓inf where it always or never does."""
        target = np.broadcast_to(target, self.lower.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = self.midpoint - np.log10((self.upper - target) / (target - self.lower)) / self.slope
        return np.where(target >= self.upper, np.inf, np.where(target <= self.lower, -np.inf, inside))


def run_variance(accuracy: Array, items: int) -> Array:
    """The variance of the accuracy of one run: of its answers, and between seeds."""
    return np.asarray(accuracy * (1 - accuracy) / items + SEED_SPREAD**2)


def posterior(log_sizes: Array, accuracies: Array, items: int, span: tuple[float, float], curves: int = 200) -> Curves:
    """Curves drawn from the posterior, at equal steps of its cumulative weights. It involves no random numbers.

    Args:
        log_sizes: log10 of the size of each run, R.
        accuracies: of each run on validation, R.
        items: how many items a run answers.
        span: log10 of the smallest and the largest candidate size.
        curves: how many are drawn.
    """
    low, high = float(accuracies.min()), float(accuracies.max())
    middle = (low + high) / 2
    lower = np.linspace(max(low - _MARGIN, 0.0), middle, _LIMITS)
    upper = np.linspace(middle, min(high + _MARGIN, 1.0), _LIMITS)
    midpoint = np.linspace(span[0] - _BEYOND, span[1] + _BEYOND, _MIDPOINTS)
    grid = Curves(*(part.ravel() for part in np.meshgrid(lower, upper, midpoint, _SLOPES, indexing="ij")))
    share, weight = _shares(midpoint, log_sizes), 1 / run_variance(accuracies, items)
    # The misfit of each grid point is a polynomial of its limits, so no array holds grid points by runs.
    alone = ((lower[:, None] - accuracies) ** 2 * weight).sum(1)[:, None, None]
    height = (upper - lower[:, None])[:, :, None]
    slant = 2 * (lower[:, None] * (share @ weight) - share @ (weight * accuracies))[:, None, :]
    chi = (alone + height * slant + height**2 * (share**2 @ weight)).ravel()
    weights = np.exp(-(chi - chi.min()) / 2)
    steps = (np.arange(curves) + 0.5) / curves * weights.sum()
    at = np.searchsorted(np.cumsum(weights), steps)
    return Curves(grid.lower[at], grid.upper[at], grid.midpoint[at], grid.slope[at])


def _shares(midpoint: Array, log_sizes: Array) -> Array:
    """The share of the way that the curves of every midpoint and slope have gone at the sizes of R runs, G × R."""
    middles, slopes = (part.ravel() for part in np.meshgrid(midpoint, _SLOPES, indexing="ij"))
    nothing = np.zeros_like(middles)
    return Curves(nothing, nothing + 1, middles, slopes).share(log_sizes)
