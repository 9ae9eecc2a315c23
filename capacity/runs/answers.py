"""Holds the graded answers of runs as arrays. One decoder reads outcomes, one packing writes answers as text."""

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
    """Says which answers of a run are correct.

    Attributes:
        items: the names of the I items, in the order of the run.
        correct: True for each correct answer, of shape (I, k) for k samples per item.
    """

    items: tuple[str, ...]
    correct: Bits

    @property
    def shares(self) -> Shares:
        """Returns the share of correct samples of each item, of shape (I,)."""
        return np.asarray(self.correct.mean(1), dtype=np.float64)

    @property
    def items_digest(self) -> str:
        """Returns the SHA-256 of the names of the items, first 16 hex digits."""
        return hashlib.sha256("\n".join(self.items).encode()).hexdigest()[:16]

    def packed(self) -> str:
        """Returns the answers as base64 text, with one bit per answer and eight answers per byte.

        The bits follow item by item. The samples of an item stand next to each other.
        """
        return base64.b64encode(np.packbits(self.correct.reshape(-1)).tobytes()).decode()


def answers_of(outcomes: Sequence[Outcome], where: str) -> Answers:
    """Returns the answers that outcomes record.

    Args:
        outcomes: the outcomes of one run, in the order of its evaluation.
        where: the file that they came from, for the error message.

    Raises:
        DataError: if there are no outcomes, or if items differ in their number of samples.
    """
    if not outcomes:
        raise DataError(f"{where}: no answers")
    if len({len(outcome.correct) for outcome in outcomes}) > 1:
        raise DataError(f"{where}: items have different numbers of answers")
    correct = np.array([outcome.correct for outcome in outcomes], dtype=bool)
    return Answers(tuple(outcome.item for outcome in outcomes), correct)


def unpacked(text: str, count: int, where: str) -> Bits:
    """Returns the `count` bits that `Answers.packed` wrote, of shape (count,).

    Raises:
        DataError: if `text` is not base64, or holds another number of bits.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError):
        packed = np.zeros(0, dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise DataError(f"{where}: the answers of a run are not {count} bits")
    return np.unpackbits(packed, count=count).astype(bool)
