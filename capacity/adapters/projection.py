"""The fixed random matrices P of TinyLoRA, the same on every machine and in every version.

P comes from SHAKE-256, not from a library's generator (whose streams change between versions), and from the
module's canonical name, not from seed + index (which would make seed s + 1 a shifted copy of seed s).
"""

import hashlib
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

SCHEME = "capacity-P-1"


def projection(seed: int, module: str, index: int, rank: int) -> NDArray[np.float64]:
    """The matrix P_index of one module, entries N(0, 1/r).

    SHAKE-256 of "scheme|seed|module|index" gives 8 bytes an entry (big-endian); the upper 53 bits k become the
    uniform (k + ½) / 2⁵³ and, by the inverse normal distribution (Wichura's AS 241), an entry · √r.

    Args:
        seed: projection seed.
        module: canonical module name, its path in the bare transformers model ("model.layers.0.mlp.up_proj").
        index: i of P_i, 0 … u−1.
        rank: r.

    Returns:
        P_index, shape (r, r), float64.
    """
    message = f"{SCHEME}|{seed}|{module}|{index}".encode()
    words = np.frombuffer(hashlib.shake_256(message).digest(8 * rank * rank), dtype=">u8")
    uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    uniforms = np.minimum(uniforms, 1 - 2.0**-53)  # the largest k would round to 1, whose inverse is infinite
    normal = NormalDist()
    entries = np.array([normal.inv_cdf(uniform) for uniform in uniforms])
    return entries.reshape(rank, rank) / math.sqrt(rank)


def projections(seed: int, module: str, u: int, rank: int) -> NDArray[np.float64]:
    """P_0 … P_{u−1} of one module, shape (u, r, r), float64."""
    matrices = [projection(seed, module, index, rank) for index in range(u)]
    return np.array(matrices, dtype=np.float64).reshape(u, rank, rank)
