"""Truncated SVD factors of a frozen weight: a block Krylov method, never a full SVD.

Only products of W with a few vectors at a time are formed, each in one pass over the memory of W. Most are in float32.
A few in float64 settle the accuracy.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from capacity.adapters.svd.lapack import Array, leading, orthonormal
from capacity.adapters.svd.products import Sides, largest_magnitude
from capacity.errors import CapacityError

TOLERANCE = 1e-6  # on ‖Wᵀu − σv‖ / σ₁
MIN_RATIO = 1.001  # of neighbouring singular values; below, the factors are not well determined
_GAP_TOLERANCE = 3e-5  # on ‖Wᵀu − σv‖ / gap, which bounds how far another algorithm or machine turns u and v
_NEXT_TOLERANCE = 1e-3  # on ‖Wᵀu − σv‖ / σ of the triplet after the last: its σ, good to the square, measures the gap
_FLOOR = 1e-12  # of σ₁, where float64 ends
_BLOCK = 4  # vectors that one pass over W takes; 2 to 8 take about as long in all
_LIMIT = 512  # vectors of a Krylov space before it is restarted
_ROUNDS = 16
_COARSE = 1e-4  # of σ₁²: residuals under a rounded W that are far below those under W
_GAIN = 0.03  # of the residuals is left after a round under a rounded W: about what the rounding itself allows
_FIRST_ROUNDS = 4  # from residuals of 0.5 % of σ₁², those of the rounding, to the least that float32 resolves


@dataclass(frozen=True)
class Factors:
    """The leading r singular triplets of a weight, W ≈ U diag(σ) Vᵀ, in float64.

    The entry of largest magnitude of each column of `u` is positive.

    Attributes:
        u: left singular vectors, (d, r).
        sigma: singular values, (r,), in falling order.
        vt: right singular vectors, (r, k).
        next_sigma: σ_{r+1}, 0 if there is none.
    """

    u: NDArray[np.float64]
    sigma: NDArray[np.float64]
    vt: NDArray[np.float64]
    next_sigma: float

    def warn_if_close(self, name: str) -> None:
        """Warns when neighbouring singular values among the first r + 1 are closer than a ratio of 1.001."""
        values = [*self.sigma.tolist(), self.next_sigma]
        for i, (value, following) in enumerate(pairwise(values), start=1):
            if value < MIN_RATIO * following:
                warnings.warn(
                    f"{name}: singular values {i} and {i + 1} are closer than a ratio of {MIN_RATIO}; "
                    "its factors are not well determined",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return


def truncated_svd(
    weight: torch.Tensor, rank: int, digest: str, name: str = "weight", check: Callable[[], None] = lambda: None
) -> Factors:
    """The leading `rank` singular triplets of `weight`.

    The method is block Krylov (Musco & Musco 2015) on the smaller of WᵀW and WWᵀ. That matrix is formed only if W's
    spectrum is flat. The start is seeded by the weight's content hash. The method works in float32 as far as that goes.
    It is then restarted from float64 vectors. Its corrections may be coarse because they are small.

    For these corrections WᵀW may be that of W rounded to 8 bits, which many CPUs multiply four times as fast. The first
    rounds then take their residuals from W in float32. In all other rounds a Rayleigh–Ritz step in float64 is the
    judge, until

        ‖Wᵀu_i − σ_i v_i‖ ≤ max(min(1e-6 σ₁, 3e-5 gap_i), 1e-12 σ₁),

    where gap_i is the distance of σ_i to its neighbours among the first r + 1, and Wᵀu, v change places if d < k. With
    this accuracy factors that another algorithm rebuilds give ΔW = U Σ R Vᵀ within 1e-4. Where singular values are too
    close or too small for that, 1e-6 σ₁ has to do.

    Args:
        weight: the weight W, of shape (d, k).
        rank: number of triplets r ≤ min(d, k).
        digest: content hash of W, which seeds the start.
        name: name of the weight, for errors.
        check: called before every product with W; what it raises ends the work.

    Raises:
        CapacityError: r > min(d, k), values that are not finite, or no convergence.
    """
    d, k = weight.shape
    if rank > min(d, k):
        raise CapacityError(f"{name}: rank {rank} is above the smaller side of its shape {d}×{k}")
    plain, exponent = _plain(weight, name)
    w = Sides(plain, check)
    n = w.n
    keep = min(n, -(-(rank + 2) // _BLOCK) * _BLOCK)
    start = np.random.default_rng(int(digest[:16], 16)).standard_normal((min(_BLOCK, n), n))
    basis = orthonormal(start).astype(np.float32)
    w.prepare(basis, keep)
    vectors = _krylov(w, basis, w.near(basis), rank, keep, np.float32, _COARSE if w.rounded else 0.0)
    for _ in range(_FIRST_ROUNDS if w.rounded else 0):
        v = orthonormal(vectors.astype(np.float64))
        images = w.both(v.astype(np.float32)).astype(np.float64)
        squares, rotation = leading(v @ images.T, keep)
        v, images = rotation @ v, rotation @ images
        residual = np.linalg.norm(images - squares[:, None] * v, axis=1)[: rank + 1]
        vectors = _krylov(w, v, images, rank, keep, np.float32, _GAIN * float(residual.max() / squares[0]))
    precision: DTypeLike = np.float32
    before = np.inf
    for _ in range(_ROUNDS):
        # W v = σ u holds exactly after the small SVD, so only the other side Wᵀu = σ v is left to test.
        v = orthonormal(vectors.astype(np.float64))
        rotation, sigma, u = np.linalg.svd(w.right(v), full_matrices=False)
        v = rotation.T @ v
        back = w.left(u)
        residual = np.linalg.norm(back - sigma[:, None] * v, axis=1)[: rank + 1]
        excess = float((residual - _allowed(np.append(sigma, 0.0)[: rank + 1])[: len(residual)]).max())
        if excess <= 0:
            break
        # Images in float32 suffice while they make progress; what they cannot resolve takes float64.
        precision = precision if excess < before / (3 if w.rounded else 10) else np.float64
        before = excess
        floor = _GAIN * float(residual.max() / sigma[0]) if w.rounded else 0.0
        vectors = _krylov(w, v, sigma[:, None] * back, rank, keep, precision, floor)
    else:
        worst = float(residual[:rank].max() / sigma[0])
        if not worst <= TOLERANCE:
            raise CapacityError(f"{name}: singular vectors did not converge (residual {worst:.1e} σ₁)")
    left, right = (u, v) if d >= k else (v, u)
    signs = np.sign(left[np.arange(rank), np.abs(left[:rank]).argmax(axis=1)])[:, None]
    sigma = np.ldexp(sigma, exponent)
    following = float(sigma[rank]) if rank < n else 0.0
    return Factors(np.ascontiguousarray((left[:rank] * signs).T), sigma[:rank], right[:rank] * signs, following)


def _plain(weight: torch.Tensor, name: str) -> tuple[Array, int]:
    """W as an array divided by a power of two, and the exponent, which is 0 unless W is very large or small.

    The array is float64 if W is, else float32. It is no copy where W has that form already.
    """
    precise = not weight.is_floating_point() or weight.dtype == torch.float64
    plain = weight.detach().to("cpu", torch.float64 if precise else torch.float32).contiguous()
    w: Array = plain.numpy()
    largest = largest_magnitude(plain)
    if not np.isfinite(largest):
        raise CapacityError(f"{name}: its weight has values that are not finite")
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) < 30:  # squares of sums stay within float32
        return w, 0
    return np.ldexp(w, -exponent), exponent


def _allowed(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest residuals that are allowed, given σ_1 … σ_{r+1}.

    That of the last triplet is a loose one: only its singular value is wanted.
    """
    gaps = sigma[:-1] - sigma[1:]
    nearest = np.minimum(gaps, np.append(np.inf, gaps[:-1]))
    strict = np.minimum(TOLERANCE * sigma[0], _GAP_TOLERANCE * nearest)
    allowed: NDArray[np.float64] = np.maximum(np.append(strict, _NEXT_TOLERANCE * sigma[-1]), _FLOOR * sigma[0])
    return allowed


def _krylov(
    w: Sides, start: Array, start_images: Array, rank: int, keep: int, precision: DTypeLike, floor: float
) -> Array:
    """The `keep` leading Ritz vectors (keep, n) of WᵀW, in falling order, on a growing Krylov space.

    Args:
        w: the weight W from its smaller side, of length n.
        start: orthonormal rows, the leading ones first; their dtype is that of the space.
        start_images: `start` WᵀW.
        rank: how many Ritz vectors must converge.
        keep: how many to return, above `rank` if n is.
        precision: dtype of the products with W. If it is coarser than `start`, the error of the result is that of
            the products times the distance from `start`.
        floor: the residual below which there is no need to go, as a share of σ₁².
    """
    size, n = start.shape
    dtype = start.dtype
    limit = min(n, max(_LIMIT, 4 * keep))
    rounded = w.rounded and precision == np.float32
    floor = max(floor if rounded else 0.0, 32 * float(np.finfo(dtype).eps))
    basis, images, projected = np.empty((limit, n), dtype), np.empty((limit, n), dtype), np.zeros((limit, limit), dtype)
    basis[:size], images[:size], projected[:size, :size] = start, start_images, start @ start_images.T
    latest = start_images if rounded else start_images[: max(_BLOCK, rank)]
    check = max(size + _BLOCK, keep)
    while True:
        room = min(len(latest), limit - size)
        if size >= check or room == 0:
            check = size + max(2 * _BLOCK, size // 16)
            values, s = leading(projected[:size, :size], min(keep, size))
            some = slice(rank + 1)
            vectors: Array = s[some] @ basis[:size]
            residual = np.linalg.norm(s[some] @ images[:size] - values[some, None] * vectors, axis=1)
            sigma = np.sqrt(np.maximum(values[some], 0)).astype(np.float64)
            allowed = _allowed(np.append(sigma, 0.0)[some])[: len(sigma)] * sigma / 2
            if room == 0 or (residual <= np.maximum(allowed, floor * values[0])).all():
                return s @ basis[:size]
        block = orthonormal(latest[:room], basis[:size])
        latest = w.near(block.astype(precision, copy=False)).astype(dtype, copy=False)
        if rounded:  # symmetry: the images agree with those of the start, which are better
            latest += (block @ start_images.T - latest @ start.T) @ start
        grown = size + room
        # Below the diagonal stand the images of the older, more exact rows: `leading` reads only those.
        projected[size:grown, :size] = block @ images[:size].T
        projected[size:grown, size:grown] = block @ latest.T
        basis[size:grown], images[size:grown] = block, latest
        size = grown
