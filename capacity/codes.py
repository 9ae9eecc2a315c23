"""Code lengths of sequences of zeros and ones, in bits."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
_NATS = np.log(2.0)


def binary_entropy(p: ArrayLike) -> Floats:
    """H₂(p) = −p log₂ p − (1−p) log₂(1−p), bits; 0 at p = 0 and 1. Any shape.

    Raises:
        ValueError: a p outside [0, 1].
    """
    share = np.asarray(p, dtype=np.float64)
    if not np.all((share >= 0) & (share <= 1)):
        raise ValueError("a probability lies from 0 to 1")
    return np.asarray((special.entr(share) + special.entr(1 - share)) / _NATS, dtype=np.float64)


def plug_in_code_bits(ones: ArrayLike, length: ArrayLike) -> Floats:
    """n·H₂(ones/n): the ideal code of a sequence whose share of ones is known beforehand. Any shape."""
    k, n = _checked(ones, length)
    return n * binary_entropy(np.divide(k, n, out=np.zeros_like(n), where=n > 0))


def kt_code_bits(ones: ArrayLike, length: ArrayLike) -> Floats:
    """Bits of the sequential code with the estimate (ones so far + ½)/(symbols so far + 1). Any shape.

    Never more than n·H₂ + ½ log₂ n + 1 (Krichevsky & Trofimov, IEEE Transactions on Information Theory 27, 1981).
    """
    k, n = _checked(ones, length)
    nats = special.betaln(0.5, 0.5) - special.betaln(k + 0.5, n - k + 0.5)
    return np.asarray(nats / _NATS, dtype=np.float64)


def _checked(ones: ArrayLike, length: ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(np.asarray(ones, dtype=np.float64), np.asarray(length, dtype=np.float64))
    if not np.all((k >= 0) & (k <= n)):
        raise ValueError("the number of ones lies from 0 to the length of the sequence")
    return k, n
