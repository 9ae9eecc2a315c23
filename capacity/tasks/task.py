"""Defines what a task is. One grader serves reward and evaluation, so both methods of a pair are graded alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Item:
    """An item is one problem of a task.

    Attributes:
        id: a name that is unique within the task.
        prompt: the prompt as text. It is used if `messages` is empty.
        answer: the reference answer, which the grader compares with.
        messages: the prompt as (role, content) pairs for the model's own chat format.
    """

    id: str
    prompt: str
    answer: str
    messages: tuple[tuple[str, str], ...] = ()


class Task(Protocol):
    """A task provides what training and evaluation need: items, demonstrations and grades."""

    @property
    def name(self) -> str:
        """Returns the name of the task in the catalogue."""
        ...

    @property
    def has_demonstrations(self) -> bool:
        """Tells whether the task has demonstrations for `sft`."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Returns the number of tokens that the longest solution takes, with the end-of-sequence token."""
        ...

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """Returns the first `count` items of a split, or all of them if `count` is None. Splits share no problem."""
        ...

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:
        """Returns `count` completions that show how to solve `item`. They are drawn anew each time."""
        ...

    def grade(self, item: Item, completion: str) -> bool:
        """Tells whether `completion`, given without special tokens, answers `item`."""
        ...


@runtime_checkable
class GradedTwice(Protocol):
    """Tasks with this interface have strict and lenient grading.

    Strict grading takes the answer only where it was asked for, lenient grading anywhere.
    """

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Tells whether the answer stands where the prompt asked for it, and is correct."""
        ...

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Tells whether the answer that the completion seems to give is correct.

        It is True whenever strict grading is True.
        """
        ...


@runtime_checkable
class Written(Protocol):
    """Tasks with this interface have demonstrations that were written beforehand, not drawn anew."""

    def different_demonstrations(self, item: Item) -> list[str]:
        """Returns the different demonstrations of `item`."""
        ...

    def is_demonstrated(self, item: Item) -> bool:
        """Tells whether `item` has a demonstration."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """Tasks with this interface know how many items their splits have before data is read."""

    def available(self, split: Split) -> int | None:
        """Returns the number of items of a split; None if it is known only after the data has been read."""
        ...
