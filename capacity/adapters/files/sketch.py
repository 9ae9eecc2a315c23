"""Short numeric fingerprints of large tensors, comparable between machines whose arithmetic differs in the last digits.

A sketch of a list of matrices M₁, M₂, … is s_j = Σ_m zᵀ M_m x over random signs z and x. SHAKE-256 draws the signs from
the matrix's name and j. The Frobenius norm of the list goes with it. E[s_j²] = ‖M‖²_F, so the mean square of the
difference of two sketches estimates the squared distance of what was sketched.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SCHEME = "capacity-probe-1"
# A true distance of 1e-4 passes but four times in 10⁸ (the mean of 8 squared sketches above 6.25 times its mean),
# one of 1e-3 is refused but in one case of ten thousand.
TOLERANCE = 2.5e-4
_SKETCHES = 8


@dataclass(frozen=True)
class Sketch:
    """The sketches s_j of a list of matrices (`values`), and the Frobenius norm of the list (`norm`)."""

    values: tuple[float, ...]
    norm: float

    def distance(self, other: "Sketch") -> float:
        """An estimate of ‖M − M'‖ / ‖M‖; 0 if both are zero."""
        difference = np.subtract(self.values, other.values)
        rms = float(np.sqrt(np.mean(difference**2)))
        return max(rms, abs(self.norm - other.norm)) / (max(self.norm, other.norm) or 1.0)

    def agrees(self, other: "Sketch") -> bool:
        """Whether both may be sketches of one thing, computed to a relative error of 1e-4.

        Something that differs by 1e-3 is taken for the same once in ten thousand cases.
        """
        return self.distance(other) <= TOLERANCE

    def encode(self) -> str:
        """The values and the norm as float32, the norm last, in base64."""
        return base64.b64encode(np.array([*self.values, self.norm], "<f4").tobytes()).decode()

    @classmethod
    def decode(cls, text: str) -> "Sketch":
        """The sketch that `encode` wrote.

        Raises:
            ValueError: the text is not of this form.
        """
        numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(float)
        if len(numbers) != _SKETCHES + 1:
            raise ValueError(f"a probe of {len(numbers)} numbers, not {_SKETCHES + 1}")
        return cls(tuple(numbers[:-1].tolist()), float(numbers[-1]))


def _signs(key: str, count: int) -> NDArray[np.float64]:
    """Signs that look random and depend on `key` only, of shape (sketches, count)."""
    raw = hashlib.shake_256(f"{SCHEME}|{key}".encode()).digest(_SKETCHES * (-(-count // 8)))
    bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(_SKETCHES, -1), axis=1)[:, :count]
    return 1.0 - 2.0 * bits.astype(np.float64)


def sketch(named: Iterable[tuple[str, tuple[Tensor, ...]]]) -> Sketch:
    """The sketch of a list of matrices. Products are sketched without being formed.

    Args:
        named: a name, unique in the list, and the factors of M from left to right: (M,), (B, A) for M = B A. A tensor
            that is not a matrix counts as one of a single row.
    """
    values, square = np.zeros(_SKETCHES), 0.0
    for name, tensors in named:
        factors = [t.detach().double().cpu().numpy() for t in tensors]
        factors = [f if f.ndim == 2 else f.reshape(1, -1) for f in factors]
        product = _signs(f"{name}|left", factors[0].shape[0])
        for factor in factors:
            product = product @ factor
        values += np.einsum("jk,jk->j", product, _signs(f"{name}|right", factors[-1].shape[1]))
        square += _square_norm(factors)
    return Sketch(tuple(values.tolist()), float(np.sqrt(max(square, 0.0))))


def _square_norm(factors: list[NDArray[np.float64]]) -> float:
    """‖M‖²_F of a matrix, or of a product B A as the trace of (Bᵀ B)(A Aᵀ)."""
    if len(factors) == 1:
        return float(np.vdot(factors[0], factors[0]))
    b, a = factors
    return float(np.vdot(b.T @ b, a @ a.T))
