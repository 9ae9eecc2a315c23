"""Nonlinear least squares inside a box, for many small problems side by side.

A problem is a function of its parameters that gives residuals and their derivatives. Problems of one shape are rows of
the same arrays: N rows, P parameters, K residuals.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.types import Array

Rows = NDArray[np.intp]
# Parameters N × P → residuals N × K and their derivatives N × K × P.
Residuals = Callable[[Array], tuple[Array, Array]]
# Rows that are minimised at once: more of them are faster, and need more memory.
SIDE_BY_SIDE = 4000


def least_squares(
    starts: Sequence[Array],
    box: tuple[Array, Array],
    residuals_of: Callable[[Rows], Residuals],
    iterations: int,
    precision: float = 1e-4,
) -> tuple[Array, Array]:
    """The best of the minima that are found from several starts.

    Few problems are minimised from all starts side by side, which saves calls. Many are minimised from one start at a
    time, which saves memory.

    Args:
        starts: parameters to start from, N × P each.
        box: the least and the greatest parameters, N × P each; equal ends fix a parameter.
        residuals_of: gives the function of the problems in some rows.
        iterations: the most that are made from a start.
        precision: the search ends when no iteration gains more than this share of 1 + the sum of squares.

    Returns:
        The parameters, N × P, and their sums of squares, N.
    """
    n, (low, high) = len(starts[0]), box
    together = len(starts) if n * len(starts) <= SIDE_BY_SIDE else 1
    best, cost = np.zeros_like(starts[0]), np.full(n, np.inf)
    for first in range(0, len(starts), together):
        some = starts[first : first + together]
        rows = np.tile(np.arange(n), len(some))
        found, other = _minimum(residuals_of, rows, np.concatenate(some), low[rows], high[rows], iterations, precision)
        for theta, sums in zip(np.split(found, len(some)), np.split(other, len(some)), strict=True):
            better = sums < cost
            best[better], cost[better] = theta[better], sums[better]
    return best, cost


def _minimum(
    residuals_of: Callable[[Rows], Residuals],
    rows: Rows,
    start: Array,
    low: Array,
    high: Array,
    iterations: int,
    precision: float,
) -> tuple[Array, Array]:
    """Levenberg–Marquardt (Marquardt 1963); a parameter at an end of its range moves only away from it.

    Problems that have reached their minimum are set aside once they are half of those that are searched.
    """
    found, sums = np.clip(start, low, high), np.empty(len(start))
    live = np.arange(len(start))
    residuals, theta = residuals_of(rows), found.copy()
    residual, jacobian = residuals(theta)
    cost = (residual**2).sum(1)
    damping = np.full(len(theta), 1e-2)
    eye = np.eye(theta.shape[1])
    for _ in range(iterations):
        gradient = np.einsum("nkp,nk->np", jacobian, residual)
        stuck = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
        moving = np.where(stuck, 0.0, 1.0)
        hessian = np.swapaxes(jacobian, 1, 2) @ jacobian * moving[:, :, None] * moving[:, None, :]
        scale = np.einsum("npp->np", hessian)
        # The ridge, which long valleys feel, is as fine as the minimum is wanted.
        ridge = 1e-5 * precision * scale.max(1, keepdims=True)
        diagonal = damping[:, None] * scale + ridge + 1e-12 + (1.0 - moving)
        step = np.linalg.solve(hessian + diagonal[:, :, None] * eye, -(gradient * moving)[:, :, None])[:, :, 0]
        trial = np.clip(theta + step, low, high)
        new_residual, new_jacobian = residuals(trial)
        new_cost = (new_residual**2).sum(1)
        good = new_cost < cost
        gained = np.where(good, cost - new_cost, 0.0)
        theta = np.where(good[:, None], trial, theta)
        residual = np.where(good[:, None], new_residual, residual)
        jacobian = np.where(good[:, None, None], new_jacobian, jacobian)
        done = (gained < precision * (1 + cost)) & good | (damping > 1e6)
        cost = np.where(good, new_cost, cost)
        damping = np.clip(np.where(good, damping * 0.2, damping * 6.0), 1e-9, 1e9)
        if done.all():
            break
        if done.mean() >= 0.5:
            found[live[done]], sums[live[done]] = theta[done], cost[done]
            left = ~done
            live, low, high, theta, cost, damping = (x[left] for x in (live, low, high, theta, cost, damping))
            residual, jacobian = residual[left], jacobian[left]
            residuals = residuals_of(rows[live])
    found[live], sums[live] = theta, cost
    return found, sums
