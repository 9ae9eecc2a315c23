"""Computes code lengths of sequences of zeros and ones, in bits."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
_NATS = np.log(2.0)


def binary_entropy(p: ArrayLike) -> Floats:
    """Returns H₂(p) = −p log₂ p − (1−p) log₂(1−p) in bits, with the shape of `p`. It is 0 at p = 0 and p = 1.

    Raises:
        ValueError: if a probability is outside [0, 1].
    """
    share = np.asarray(p, dtype=np.float64)
    if not np.all((share >= 0) & (share <= 1)):
        raise ValueError("a probability lies from 0 to 1")
    return np.asarray((special.entr(share) + special.entr(1 - share)) / _NATS, dtype=np.float64)


def plug_in_code_bits(ones: ArrayLike, length: ArrayLike) -> Floats:
    """Returns n·H₂(ones/n) bits, the ideal code length of a sequence whose share of ones is known beforehand.

    `ones` and `length` (n) may be arrays of any shapes that broadcast.

    Raises:
        ValueError: if a number of ones is negative or above its length.
    """
    k, n = _checked(ones, length)
    return n * binary_entropy(np.divide(k, n, out=np.zeros_like(n), where=n > 0))


def kt_code_bits(ones: ArrayLike, length: ArrayLike) -> Floats:
    """Returns the code length by the Krichevsky–Trofimov estimator, in bits.

    The estimate of the next symbol is (ones so far + ½)/(symbols so far + 1). The length never exceeds n·H₂ + ½ log₂ n
    + 1 (Krichevsky & Trofimov, IEEE Transactions on Information Theory 27, 1981). `ones` and `length` (n) may be arrays
    of any shapes that broadcast.

    Raises:
        ValueError: if a number of ones is negative or above its length.
    """
    k, n = _checked(ones, length)
    nats = special.betaln(0.5, 0.5) - special.betaln(k + 0.5, n - k + 0.5)
    return np.asarray(nats / _NATS, dtype=np.float64)


def _checked(ones: ArrayLike, length: ArrayLike) -> tuple[Floats, Floats]:
    k, n = np.broadcast_arrays(np.asarray(ones, dtype=np.float64), np.asarray(length, dtype=np.float64))
    if not np.all((k >= 0) & (k <= n)):
        raise ValueError("the number of ones lies from 0 to the length of the sequence")
    return k, n
