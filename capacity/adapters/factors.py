"""Truncated SVD factors of a frozen weight: subspace iteration in float64, never a full SVD, cached on disk."""

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from capacity.errors import CapacityError

TOLERANCE = 1e-6  # on ‖Wᵀu − σv‖ / σ₁
MIN_RATIO = 1.001  # of neighbouring singular values; below, the factors are not well determined
_OVERSAMPLING = 14
_MAX_ITERATIONS = 5000
_SCHEME = "factors-1"


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
    """SHA-256 over dtype, shape and bytes of a weight, 64 hex digits."""
    data = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype}|{tuple(data.shape)}|".encode())
    digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def truncated_svd(weight: torch.Tensor, rank: int, digest: str, name: str = "weight") -> Factors:
    """The leading `rank` singular triplets of `weight`.

    Subspace iteration on WᵀW with Rayleigh–Ritz (Halko, Martinsson & Tropp 2011), from a Gaussian start seeded by
    the weight's content hash, until ‖Wᵀu − σv‖ ≤ 1e-6 σ₁ for each triplet.

    Args:
        weight: W, shape (d, k).
        rank: r ≤ min(d, k).
        digest: content hash of W (seeds the start).
        name: named in the error.

    Raises:
        CapacityError: r > min(d, k), or no convergence.
    """
    d, k = weight.shape
    if rank > min(d, k):
        raise CapacityError(f"{name}: rank {rank} is above the smaller side of its shape {d}×{k}")
    w = weight.detach().to("cpu", torch.float64)
    width = min(rank + _OVERSAMPLING, d, k)
    generator = torch.Generator().manual_seed(int(digest[:15], 16))
    basis = torch.linalg.qr(torch.randn(k, width, generator=generator, dtype=torch.float64)).Q
    for _ in range(_MAX_ITERATIONS):
        # W·basis = U Σ Rᵀ makes W v = σ u exact, so only the other side Wᵀu = σ v is left to test.
        left, sigma, right_t = torch.linalg.svd(w @ basis, full_matrices=False)
        back = w.T @ left
        vt = right_t @ basis.T
        residual = torch.linalg.vector_norm(back - vt.T * sigma, dim=0)[:rank]
        if bool((residual <= TOLERANCE * sigma[0]).all()):
            break
        basis = torch.linalg.qr(back).Q
    else:
        worst = float(residual.max() / sigma[0])
        raise CapacityError(f"{name}: singular vectors did not converge (residual {worst:.1e} σ₁)")
    u, s, v = left[:, :rank].numpy(), sigma[:rank].numpy(), vt[:rank].numpy()
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(rank)])
    following = float(sigma[rank]) if width > rank else 0.0
    return Factors(np.ascontiguousarray(u * signs), s.copy(), np.ascontiguousarray(v * signs[:, None]), following)


def default_cache() -> Path:
    """`$CAPACITY_CACHE/factors`, else `capacity/factors` under the user's cache folder."""
    root = os.environ.get("CAPACITY_CACHE")
    if root:
        return Path(root) / "factors"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capacity" / "factors"


def cached_svd(weight: torch.Tensor, rank: int, name: str, cache: Path | None) -> Factors:
    """`truncated_svd` through a cache folder (`None`: no cache) keyed by content hash and rank.

    Warns about singular values that are too close. A cached file that cannot be read, or whose factors do not fit the
    weight, is computed anew and replaced.
    """
    digest = content_hash(weight)
    path = cache / f"{digest}-r{rank}-{_SCHEME}.npz" if cache is not None else None
    factors = _read(path, weight, rank) if path is not None else None
    if factors is None:
        factors = truncated_svd(weight, rank, digest, name)
        if path is not None:
            _write(path, factors)
    factors.warn_if_close(name)
    return factors


def _read(path: Path, weight: torch.Tensor, rank: int) -> Factors | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            factors = Factors(stored["u"], stored["sigma"], stored["vt"], float(stored["next_sigma"]))
    except FileNotFoundError:
        return None
    except Exception:  # whatever a damaged file raises, the answer is to compute it again
        return None
    d, k = weight.shape
    if factors.u.shape != (d, rank) or factors.vt.shape != (rank, k) or factors.sigma.shape != (rank,):
        return None
    w = weight.detach().to("cpu", torch.float64).numpy()
    residual = np.linalg.norm(w.T @ factors.u - factors.vt.T * factors.sigma, axis=0)
    fits = residual <= 2 * TOLERANCE * factors.sigma[0]
    return factors if bool(fits.all()) else None


def _write(path: Path, factors: Factors) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as handle:
            np.savez(handle, u=factors.u, sigma=factors.sigma, vt=factors.vt, next_sigma=factors.next_sigma)
        Path(handle.name).replace(path)
    except OSError as error:
        warnings.warn(f"factor cache {path.parent} cannot be written: {error}", RuntimeWarning, stacklevel=3)
