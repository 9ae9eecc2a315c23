"""How well a number of bits can describe Gaussian numbers: the limit that stored updates are held against."""

import numpy as np
from numpy.typing import ArrayLike

from capacity_analysis.types import Array


def shannon_distortion(bits: ArrayLike) -> Array:
    """2^(−2R), the least mean squared error that any code of N(0, 1) numbers has at R bits a number (Shannon 1959)."""
    return np.asarray(4.0 ** -np.asarray(bits, dtype=np.float64))
