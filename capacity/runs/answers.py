"""The graded answers of runs as arrays: one decoder of outcomes, and one packing of them into text."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity.errors import DataError
from capacity.spec.result import Outcome

Bits = NDArray[np.bool_]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Which answers of a run were correct.

    Attributes:
        items: names of the I items, in the order of the run.
        correct: I × k, k samples of each item.
    """

    items: tuple[str, ...]
    correct: Bits

    @property
    def shares(self) -> Shares:
        """The share of correct samples of each item, (I,)."""
        return np.asarray(self.correct.mean(1), dtype=np.float64)

    @property
    def items_digest(self) -> str:
        """SHA-256 of the names of the items, 16 hex digits."""
        return hashlib.sha256("\n".join(self.items).encode()).hexdigest()[:16]

    def packed(self) -> str:
        """One bit an answer, item by item, samples of an item in a row, eight a byte, base64."""
        return base64.b64encode(np.packbits(self.correct.reshape(-1)).tobytes()).decode()


def answers_of(outcomes: Sequence[Outcome], where: str) -> Answers:
    """The answers that outcomes record.

    Raises:
        DataError: there are none, or items differ in their number of samples.
    """
    if not outcomes:
        raise DataError(f"{where}: no answers")
    if len({len(outcome.correct) for outcome in outcomes}) > 1:
        raise DataError(f"{where}: items have different numbers of answers")
    correct = np.array([outcome.correct for outcome in outcomes], dtype=bool)
    return Answers(tuple(outcome.item for outcome in outcomes), correct)


def unpacked(text: str, count: int, where: str) -> Bits:
    """The `count` bits that `Answers.packed` wrote, (count,).

    Raises:
        DataError: not base64, or another number of bits.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError):
        packed = np.zeros(0, dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise DataError(f"{where}: the answers of a run are not {count} bits")
    return np.unpackbits(packed, count=count).astype(bool)
