"""Truncated SVD factors of a frozen weight: a block Krylov method, never a full SVD, cached on disk.

Only products of W with a few vectors at a time are formed, each in one pass over the memory of W: most in float32, a
few in float64, which settle the accuracy.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import DTypeLike, NDArray
from scipy.linalg.lapack import dgeqrf, dorgqr, dsyevr, sgeqrf, sorgqr, ssyevr

from capacity.errors import CapacityError

TOLERANCE = 1e-6  # on ‖Wᵀu − σv‖ / σ₁
MIN_RATIO = 1.001  # of neighbouring singular values; below, the factors are not well determined
_GAP_TOLERANCE = 3e-5  # on ‖Wᵀu − σv‖ / gap, which bounds how far another algorithm or machine turns u and v
_NEXT_TOLERANCE = 1e-3  # on ‖Wᵀu − σv‖ / σ of the triplet after the last: its σ, good to the square, measures the gap
_FLOOR = 1e-12  # of σ₁, where float64 ends
_BLOCK = 4  # vectors that one pass over W takes; 2 to 8 take about as long in all
_CALL = 2**19  # multiply-adds of one matrix product: its slice of W stays in cache, and BLAS has kernels for small ones
_LIMIT = 512  # vectors of a Krylov space before it is restarted
_ROUNDS = 16
_FLAT = 1024  # below this length of its smaller side, passes over W always cost less than WᵀW
_LEVELS = 127  # of an entry rounded to 8 bits, on either side of 0
_LONG = 1024  # of the larger side for every vector kept; below, rounding W saves less than the rounds it adds cost
_PEAK = 8  # of the largest entry over their root mean square; above, 8 bits are too few
_COARSE = 1e-4  # of σ₁²: residuals under a rounded W that are far below those under W
_GAIN = 0.03  # of the residuals is left after a round under a rounded W: about what the rounding itself allows
_FIRST_ROUNDS = 4  # from residuals of 0.5 % of σ₁², those of the rounding, to the least that float32 resolves
_SMALL = 2**21  # entries of a W of which a float64 copy, 16 MB, is worth its memory
_SCHEME = "factors-2"

_Array = NDArray[Any]  # float32 or float64


@dataclass(frozen=True)
class Factors:
    """W ≈ U diag(σ) Vᵀ: `u` (d, r), `sigma` (r,), `vt` (r, k), float64; `next_sigma` is σ_{r+1}, 0 if there is none.

    Signs: the entry of largest magnitude of each column of `u` is positive.
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


def content_hash(weight: torch.Tensor) -> str:
    """XXH3-128 over the shape and the values of a tensor as float32, 32 hex digits.

    It names a weight in caches and fingerprints, at the speed of memory; nobody's trust rests on it.

    So a bfloat16 checkpoint has one hash, loaded as it is or in float32. Of float64 and integer tensors the dtype and
    the raw bytes are hashed. Works in slices: a large tensor is never copied whole.
    """
    narrow = weight.is_floating_point() and weight.element_size() <= 4
    dtype = torch.float32 if narrow else weight.dtype
    digest = xxhash.xxh3_128(f"{dtype}|{tuple(weight.shape)}|".encode())
    rows = weight.detach() if weight.dim() else weight.detach().reshape(1)
    step = max(1, 2**20 * len(rows) // max(1, rows.numel()))
    for start in range(0, len(rows), step):
        digest.update(rows[start : start + step].to("cpu", dtype).contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def truncated_svd(
    weight: torch.Tensor, rank: int, digest: str, name: str = "weight", check: Callable[[], None] = lambda: None
) -> Factors:
    """The leading `rank` singular triplets of `weight`.

    Block Krylov (Musco & Musco 2015) on the smaller of WᵀW and WWᵀ, formed only if W's spectrum is flat, from a start
    seeded by the weight's content hash: in float32 as far as that goes, then restarted from float64 vectors with
    corrections that may be coarse because they are small. For these WᵀW may be that of W rounded to 8 bits, which many
    CPUs multiply four times as fast; the first rounds then take their residuals from W in float32. In all others a
    Rayleigh–Ritz step in float64 is the judge, until

        ‖Wᵀu_i − σ_i v_i‖ ≤ max(min(1e-6 σ₁, 3e-5 gap_i), 1e-12 σ₁),

    where gap_i is the distance of σ_i to its neighbours among the first r + 1, and Wᵀu, v change places if d < k. So
    factors rebuilt by another algorithm give ΔW = U Σ R Vᵀ within 1e-4. Where singular values are too close or too
    small for that, 1e-6 σ₁ has to do.

    Args:
        weight: W, shape (d, k).
        rank: r ≤ min(d, k).
        digest: content hash of W (seeds the start).
        name: named in the error.
        check: called before every product with W; what it raises ends the work.

    Raises:
        CapacityError: r > min(d, k), values that are not finite, or no convergence.
    """
    d, k = weight.shape
    if rank > min(d, k):
        raise CapacityError(f"{name}: rank {rank} is above the smaller side of its shape {d}×{k}")
    plain, exponent = _plain(weight, name)
    w = _Sides(plain, check)
    n = w.n
    keep = min(n, -(-(rank + 2) // _BLOCK) * _BLOCK)
    start = np.random.default_rng(int(digest[:16], 16)).standard_normal((min(_BLOCK, n), n))
    basis = _orthonormal(start).astype(np.float32)
    w.prepare(basis, keep)
    vectors = _krylov(w, basis, w.near(basis), rank, keep, np.float32, _COARSE if w.rounded else 0.0)
    for _ in range(_FIRST_ROUNDS if w.rounded else 0):
        v = _orthonormal(vectors.astype(np.float64))
        images = w.both(v.astype(np.float32)).astype(np.float64)
        squares, rotation = _leading(v @ images.T, keep)
        v, images = rotation @ v, rotation @ images
        residual = np.linalg.norm(images - squares[:, None] * v, axis=1)[: rank + 1]
        vectors = _krylov(w, v, images, rank, keep, np.float32, _GAIN * float(residual.max() / squares[0]))
    precision: DTypeLike = np.float32
    before = np.inf
    for _ in range(_ROUNDS):
        # W v = σ u holds exactly after the small SVD, so only the other side Wᵀu = σ v is left to test.
        v = _orthonormal(vectors.astype(np.float64))
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


def _plain(weight: torch.Tensor, name: str) -> tuple[_Array, int]:
    """W as an array, divided by 2 to an exponent that is 0 unless W is very large or small.

    Float64 if W is, else float32; without a copy where it has that form already.
    """
    precise = not weight.is_floating_point() or weight.dtype == torch.float64
    plain = weight.detach().to("cpu", torch.float64 if precise else torch.float32).contiguous()
    w: _Array = plain.numpy()
    largest = _largest(plain)
    if not np.isfinite(largest):
        raise CapacityError(f"{name}: its weight has values that are not finite")
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) < 30:  # squares of sums stay within float32
        return w, 0
    return np.ldexp(w, -exponent), exponent


def _largest(w: torch.Tensor) -> float:
    """The largest magnitude of an entry; not finite if some entry is not."""
    low, high = torch.aminmax(w)
    return float(torch.maximum(-low, high))


def _rounded_gram(w: torch.Tensor, largest: float) -> _Array:
    """The smaller of WᵀW and WWᵀ for W rounded to 8 bits. Its sums are exact, the same on every machine."""
    rounded = torch.empty(w.shape, dtype=torch.int8)
    for start in range(0, len(w), 64):
        rows = slice(start, start + 64)
        rounded[rows] = (w[rows] * (_LEVELS / largest)).round_()
    sides = rounded if w.shape[0] < w.shape[1] else rounded.T
    gram = torch.empty(len(sides), len(sides))
    for start in range(0, len(sides), 256):
        block = slice(start, start + 256)
        products = torch._int_mm(sides[block], sides[start:].T)
        gram[block, start:], gram[start:, block] = products, products.T
    scaled: _Array = gram.mul_((largest / _LEVELS) ** 2).numpy()
    return scaled


class _Sides:
    """W seen from its smaller side, of length n: products with W, with Wᵀ and with both.

    Here W has at least as many rows as columns; an array that has fewer stands for its transpose.
    """

    def __init__(self, w: _Array, check: Callable[[], None]) -> None:
        self.w = w
        self.check = check
        self.wide = w.shape[0] < w.shape[1]
        self.n = min(w.shape)
        # A small W is kept in float64 too; of a large one a few rows at a time are converted, again and again.
        self.exact = w.astype(np.float64) if w.size <= _SMALL else w
        self.tall = w
        self.gram: _Array | None = None
        self.rounded = False  # it is that of W rounded to 8 bits

    def prepare(self, x: _Array, keep: int) -> None:
        """Chooses how `near` works for so many vectors kept, from the products of X with a part of W.

        Passes over W are cheap if few are needed, and that is so if some singular values stand out. If the squares
        of all of them add up to many times the largest, none does, and the matrix WᵀW is worth its price.
        """
        if self.n >= _FLAT and self.w.size >= 2 * self.n**2 and self.w.dtype == np.float32:
            part = _Sides(self.w[:, : 2 * self.n] if self.wide else self.w[: 2 * self.n], self.check)
            image = part.left(part.right(_orthonormal(part.left(part.right(x)))))
            squares = float(torch.linalg.vector_norm(torch.from_numpy(part.w))) ** 2
            if squares > self.n / 4 * float(np.linalg.norm(image, axis=1).max()):
                self._multiply(squares / part.w.size, keep)
        if self.wide and self.gram is None:
            self.tall = torch.from_numpy(self.w).T.contiguous().numpy()

    def _multiply(self, mean_square: float, keep: int) -> None:
        """Forms WᵀW: of a rounded W where that pays, the CPU is fast at it, and no entry of W stands out."""
        w, length = torch.from_numpy(self.w), max(self.w.shape)
        largest = _largest(w)
        fast = torch._C._has_mkldnn and torch.cpu._is_vnni_supported()
        pays = length >= _LONG * keep and length * _LEVELS**2 < 2**31  # and the sums fit 32 bits
        self.rounded = fast and pays and largest**2 < _PEAK**2 * mean_square
        if self.rounded:
            self.gram = _rounded_gram(w, largest)
        else:
            self.gram = self.w @ self.w.T if self.wide else self.w.T @ self.w

    def right(self, x: _Array) -> _Array:
        """X Wᵀ for rows X (m, n)."""
        self.check()
        w = self.exact if x.dtype == np.float64 else self.w
        return _times_transposed(w, x) if self.wide else _times(w, x)

    def left(self, y: _Array) -> _Array:
        """Y W, shape (m, n), for rows Y of the other length."""
        self.check()
        w = self.exact if y.dtype == np.float64 else self.w
        return _times(w, y) if self.wide else _times_transposed(w, y)

    def near(self, x: _Array) -> _Array:
        """As `both`, but in float32 by the matrix WᵀW if there is one."""
        if self.gram is None or x.dtype == np.float64:
            return self.both(x)
        self.check()
        return _times(self.gram, x)

    def both(self, x: _Array) -> _Array:
        """X WᵀW for rows X (m, n), in the dtype of X, in one pass over W unless W is wide and no copy of Wᵀ there."""
        self.check()
        if self.wide and self.gram is not None:
            return self.left(self.right(x))
        product = np.zeros_like(x)
        for _, rows in _slices(self.tall, x):
            product += (x @ rows.T) @ rows
        return product


def _step(w: _Array, vectors: _Array) -> int:
    """How many rows of W one matrix product takes."""
    columns: int = w.shape[1]
    return max(16, _CALL // (len(vectors) * columns))


def _slices(w: _Array, vectors: _Array) -> Iterator[tuple[slice, _Array]]:
    """Rows of W a few at a time, in the dtype of `vectors`, so that products with both sides find them in cache."""
    step = _step(w, vectors)
    same = w.dtype == vectors.dtype
    for start in range(0, len(w), step):
        part = slice(start, start + step)
        yield part, w[part] if same else w[part].astype(vectors.dtype)


def _times(w: _Array, x: _Array) -> _Array:
    """X Wᵀ for rows X (m, columns of W), in the dtype of X: shape (m, rows of W)."""
    product = np.empty((len(x), len(w)), x.dtype)
    if w.dtype == x.dtype:  # all in one call, so that threads do not wait for Python between its products
        step = _step(w, x)
        whole = len(w) - len(w) % step
        blocks = w[:whole].reshape(-1, step, w.shape[1]).swapaxes(1, 2)
        product[:, :whole] = (x @ blocks).swapaxes(0, 1).reshape(len(x), whole)
        product[:, whole:] = x @ w[whole:].T
        return product
    for part, rows in _slices(w, x):
        product[:, part] = x @ rows.T
    return product


def _times_transposed(w: _Array, y: _Array) -> _Array:
    """Y W for rows Y (m, rows of W), in the dtype of Y: shape (m, columns of W)."""
    product = np.zeros((len(y), w.shape[1]), y.dtype)
    for part, rows in _slices(w, y):
        product += y[:, part] @ rows
    return product


def _orthonormal(rows: _Array, basis: _Array | None = None) -> _Array:
    """Orthonormal rows that span `rows`, without their part in the rows of `basis`.

    LAPACK is called directly, here and in `_leading`: the matrices are small, and a wrapper costs as much again.
    """
    if basis is None:
        factorise, form = (sgeqrf, sorgqr) if rows.dtype == np.float32 else (dgeqrf, dorgqr)
        reflectors, scales, _, _ = factorise(rows.T)
        return np.ascontiguousarray(form(reflectors, scales)[0].T)
    rows = _orthonormal(rows - (rows @ basis.T) @ basis)
    overlap = rows @ basis.T  # of rounding, so tiny unless little but rounding was left
    rows -= overlap @ basis
    return rows if float(np.abs(overlap).max()) < 1e-3 else _orthonormal(rows)


def _allowed(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest residuals allowed, given σ_1 … σ_{r+1}; a loose one of the last triplet, for its σ alone."""
    gaps = sigma[:-1] - sigma[1:]
    nearest = np.minimum(gaps, np.append(np.inf, gaps[:-1]))
    strict = np.minimum(TOLERANCE * sigma[0], _GAP_TOLERANCE * nearest)
    allowed: NDArray[np.float64] = np.maximum(np.append(strict, _NEXT_TOLERANCE * sigma[-1]), _FLOOR * sigma[0])
    return allowed


def _krylov(
    w: _Sides, start: _Array, start_images: _Array, rank: int, keep: int, precision: DTypeLike, floor: float
) -> _Array:
    """The `keep` leading Ritz vectors (keep, n) of WᵀW, in falling order, on a growing Krylov space.

    Args:
        w: W from its smaller side, of length n.
        start: orthonormal rows, the leading ones first; their dtype is that of the space.
        start_images: `start` WᵀW.
        rank: how many Ritz vectors must converge.
        keep: how many to return, above `rank` if n is.
        precision: dtype of the products with W. If it is coarser than `start`, the error of the result is that of
            the products times the distance from `start`.
        floor: of σ₁², the residuals below which there is no need to go.
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
            values, s = _leading(projected[:size, :size], min(keep, size))
            some = slice(rank + 1)
            vectors: _Array = s[some] @ basis[:size]
            residual = np.linalg.norm(s[some] @ images[:size] - values[some, None] * vectors, axis=1)
            sigma = np.sqrt(np.maximum(values[some], 0)).astype(np.float64)
            allowed = _allowed(np.append(sigma, 0.0)[some])[: len(sigma)] * sigma / 2
            if room == 0 or (residual <= np.maximum(allowed, floor * values[0])).all():
                return s @ basis[:size]
        block = _orthonormal(latest[:room], basis[:size])
        latest = w.near(block.astype(precision, copy=False)).astype(dtype, copy=False)
        if rounded:  # symmetry: the images agree with those of the start, which are better
            latest += (block @ start_images.T - latest @ start.T) @ start
        grown = size + room
        # Below the diagonal stand the images of the older, more exact rows: `_leading` reads only those.
        projected[size:grown, :size] = block @ images[:size].T
        projected[size:grown, size:grown] = block @ latest.T
        basis[size:grown], images[size:grown] = block, latest
        size = grown


def _leading(matrix: _Array, count: int) -> tuple[_Array, _Array]:
    """The largest eigenvalues (count,), falling, and eigenvectors as rows, of a symmetric matrix's lower half."""
    n = len(matrix)
    values, vectors, _, _, failed = (ssyevr if matrix.dtype == np.float32 else dsyevr)(
        matrix, lower=1, range="I", il=n - count + 1, iu=n
    )
    if failed:
        raise CapacityError("the eigenvectors of a projected matrix did not converge")
    return values[:count][::-1], np.ascontiguousarray(vectors[:, :count].T[::-1])


def default_cache() -> Path:
    """`$CAPACITY_CACHE/factors`, else `capacity/factors` under the user's cache folder."""
    root = os.environ.get("CAPACITY_CACHE")
    if root:
        return Path(root) / "factors"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capacity" / "factors"


def cached_svd(weight: torch.Tensor, rank: int, name: str, cache: Path | None) -> Factors:
    """`truncated_svd` through a cache folder (`None`: no cache) keyed by content hash and rank.

    Warns about singular values that are too close. A cached file that is damaged is computed anew and replaced.
    """
    digest = content_hash(weight)
    factors = read_factors(cache, digest, rank)
    if factors is None:
        factors = truncated_svd(weight, rank, digest, name)
        write_factors(cache, digest, factors)
    factors.warn_if_close(name)
    return factors


def _entry(digest: str, rank: int) -> str:
    return f"{digest}-r{rank}-{_SCHEME}"


def read_factors(cache: Path | None, digest: str, rank: int) -> Factors | None:
    """The cached factors of the weight with this content hash; None if there are none, or only a damaged file."""
    if cache is None:
        return None
    try:
        # Reading checks the CRC-32 of every member of the file; `entry` shows that it is not another weight's.
        with np.load(cache / f"{_entry(digest, rank)}.npz", allow_pickle=False) as stored:
            if stored["entry"].item() != _entry(digest, rank):
                return None
            return Factors(stored["u"], stored["sigma"], stored["vt"], stored["next_sigma"].item())
    except Exception:  # whatever a damaged file raises, the answer is to compute it again
        return None


def write_factors(cache: Path | None, digest: str, factors: Factors) -> None:
    """Puts factors into the cache, whole or not at all; a cache that cannot be written is a warning."""
    if cache is None:
        return
    entry = _entry(digest, len(factors.sigma))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as handle:
            partial = Path(handle.name)
            try:
                np.savez(handle, **vars(factors), entry=np.array(entry))
                partial.replace(cache / f"{entry}.npz")
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"factor cache {cache} cannot be written: {error}", RuntimeWarning, stacklevel=3)
