"""How well a number of bits can describe Gaussian numbers: the limits that stored updates are held against."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.special import ndtr, ndtri

from capacity.codes import Floats


@dataclass(frozen=True)
class Quantiser:
    """A scalar quantiser of N(0, 1).

    Attributes:
        levels: what is decoded, rising.
        distortion: mean squared error.
    """

    levels: Floats
    distortion: float


def lloyd_max(bits: int) -> Quantiser:
    """The quantiser of 2^bits levels with the least mean squared error for N(0, 1) (Max 1960; Lloyd 1982).

    Each level is the mean of its cell and each border the middle of its levels. Found as a root of that condition for
    the positive half, the other being its mirror image.

    Raises:
        ValueError: fewer than 1 bit, or more than 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError("from 1 to 8 bits")
    half = 2 ** (bits - 1)
    start = ndtri((np.arange(half) + 0.5) / (2 * half) + 0.5)
    for _ in range(200):  # Lloyd's own steps come near, slowly
        start, _ = _cell_means(start)
    levels: Floats = optimize.fsolve(lambda x: x - _cell_means(x)[0], start, xtol=1e-13)
    means, masses = _cell_means(levels)
    return Quantiser(np.concatenate([-levels[::-1], levels]), float(1 - 2 * (masses * means**2).sum()))


def _cell_means(levels: Floats) -> tuple[Floats, Floats]:
    """Mean and probability of the cells of the positive `levels`, the first of which begins at 0."""
    borders = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    masses = np.diff(-ndtr(-borders))
    density = np.exp(-0.5 * borders**2) / math.sqrt(2 * math.pi)
    return -np.diff(density) / masses, masses


def shannon_distortion(bits: ArrayLike) -> Floats:
    """2^(−2R): the least mean squared error of N(0, 1) numbers at R bits a number, of any code whatever."""
    return np.asarray(4.0 ** -np.asarray(bits, dtype=np.float64))
