"""The fixed matrices P of TinyLoRA, the same on every machine and in every version.

P comes from SHAKE-256, because the streams of a library's generator change between versions. It comes from the module's
canonical name. Seed + index would make seed s + 1 a shifted copy of seed s.

Each P has numbered candidates, of which a run may choose one (`capacity.adapters.candidates`). Number 0 is the random
P of the paper.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

SCHEME = "capacity-P-1"


def projection(seed: int, module: str, index: int, rank: int, number: int = 0) -> NDArray[np.float64]:
    """Returns the matrix P_index of one module, with entries N(0, 1/r).

    SHAKE-256 of "scheme|seed|module|index", and for candidates above 0 also "|number", gives 8 bytes an entry
    (big-endian). The upper 53 bits k become the uniform (k + ½) / 2⁵³. The inverse normal distribution (Wichura's
    AS 241) makes an entry · √r of it.

    Args:
        seed: the projection seed.
        module: the canonical module name, its path in the bare transformers model ("model.layers.0.mlp.up_proj").
        index: i of P_i, 0 … u−1.
        rank: r.
        number: the number of the candidate.

    Returns:
        P_index, shape (r, r), float64.
    """
    normal = NormalDist()
    entries = np.array([normal.inv_cdf(uniform) for uniform in _uniforms(seed, module, index, rank, (number,))[0]])
    return entries.reshape(rank, rank) / math.sqrt(rank)


def normal_entries(seed: int, module: str, index: int, rank: int, numbers: Iterable[int]) -> NDArray[np.float64]:
    """Returns many candidates for one P at once, flattened, shape (numbers, r²).

    They agree with `projection` to about 1e-14: a vectorised inverse normal distribution is used, which may differ
    between machines in its last digits. So it serves to compare candidates, not to build an update.
    """
    return np.asarray(ndtri(_uniforms(seed, module, index, rank, numbers))) / math.sqrt(rank)


def projections(seed: int, module: str, u: int, rank: int, numbers: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Returns P_0 … P_{u−1} of one module, shape (u, r, r), float64: the random ones, or u numbered candidates."""
    numbers = (0,) * u if numbers is None else numbers
    matrices = [projection(seed, module, index, rank, number) for index, number in enumerate(numbers)]
    return np.array(matrices, dtype=np.float64).reshape(u, rank, rank)


def _uniforms(seed: int, module: str, index: int, rank: int, numbers: Iterable[int]) -> NDArray[np.float64]:
    """Returns the uniform numbers in (0, 1) of some candidates, shape (numbers, r²)."""
    start = hashlib.shake_256(f"{SCHEME}|{seed}|{module}|{index}".encode())
    digests = []
    for number in numbers:
        state = start.copy()
        if number:
            state.update(f"|{number}".encode())
        digests.append(state.digest(8 * rank * rank))
    words = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, rank * rank)
    uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.minimum(uniforms, 1 - 2.0**-53)  # the largest k would round to 1, whose inverse is infinite
