"""Races all messages of a few bits: every code is an update, and the best on training items wins.

A code says which of 2^s candidates is the P of each of u parameters, and which of 2^l levels each parameter has. One
group takes all modules. So a code has u (s + l) bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from capacity.adapters.files.levels import Levels
from capacity.adapters.kinds.tinylora import TinyLoraModel
from capacity.sampling.exam import Exam


@dataclass(frozen=True)
class CodeBook:
    """A code book fixes which codes there are, before any item is asked.

    Attributes:
        parameters: u, 1 or 2.
        choice_bits: s of each parameter.
        level_bits: l of each parameter.
        scale: the largest magnitude of a level.
    """

    parameters: int
    choice_bits: int
    level_bits: int
    scale: float

    @property
    def bits(self) -> int:
        """Returns the length of every code, u (s + l)."""
        return self.parameters * (self.choice_bits + self.level_bits)

    @property
    def levels(self) -> Levels:
        """Returns the levels of a parameter."""
        return Levels(bits=self.level_bits, scale=self.scale)

    def codes(self) -> Iterator["Code"]:
        """Yields all codes in the order of their numbers."""
        one = list(product(range(1 << self.choice_bits), self.levels.values))
        for parts in product(one, repeat=self.parameters):
            yield Code(tuple(candidate for candidate, _ in parts), tuple(level for _, level in parts))


@dataclass(frozen=True)
class Code:
    """A code is one update: the candidate and the value of each parameter."""

    candidates: tuple[int, ...]
    values: tuple[float, ...]

    def put_on(self, adapted: TinyLoraModel) -> None:
        """Makes this code the update of the model."""
        if adapted.candidates != self.candidates:
            adapted.choose(self.candidates)
        adapted.set_vector(torch.tensor(self.values))


@dataclass(frozen=True)
class Winner:
    """The code that won a race, with how many of all items it answered correctly."""

    code: Code
    correct: int


def race(
    codes: Sequence[Code],
    adapted: TinyLoraModel,
    exam: Exam,
    first: int = 32,
    on_round: Callable[[int, int, int], None] | None = None,
) -> Winner:
    """Returns the best code by successive halving.

    All codes answer the first items. The better half answers twice as many, and so on, until those that are left have
    answered all items. Of equal codes the earlier one is better.

    Args:
        codes: the codes.
        adapted: the model that holds one code after the other.
        exam: the training items.
        first: how many items all codes answer.
        on_round: a function that hears after each code how many codes and items the round has, and how many are done.
    """
    alive = list(enumerate(codes))
    scores = np.zeros(len(alive), dtype=np.int64)
    asked, until = 0, min(first, len(exam))
    while True:
        for done, (number, code) in enumerate(alive, start=1):
            code.put_on(adapted)
            scores[number] += int(exam.hits(adapted, asked, until).sum())
            if on_round is not None:
                on_round(len(alive), until, done)
        alive.sort(key=lambda each: (-scores[each[0]], each[0]))
        if until == len(exam):
            number, code = alive[0]
            return Winner(code, int(scores[number]))
        alive = sorted(alive[: max(1, len(alive) // 2)], key=lambda each: each[0])
        asked, until = until, min(2 * until, len(exam))
