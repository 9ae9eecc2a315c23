"""The SVD factors of every weight and rank are computed once and kept on disk."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from capacity.adapters.svd.content_hash import content_hash
from capacity.adapters.svd.factors import Factors, truncated_svd

_SCHEME = "factors-2"


def cached_svd(weight: torch.Tensor, rank: int, name: str, cache: Path | None) -> Factors:
    """The factors of a weight from the cache, computed by `truncated_svd` if they are not there.

    The cache is a folder with a file for each content hash and rank; with None there is no cache. This function warns
    about singular values that are too close. A cached file that is damaged is computed anew and replaced.
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
