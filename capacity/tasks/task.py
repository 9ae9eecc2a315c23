"""What a task is. The same grader serves reward and evaluation, so both arms are judged alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Item:
    """One problem: `id` is unique within the task, `answer` what the grader compares with.

    `messages`: the prompt as (role, content) pairs for the model's own chat format; if empty, `prompt` goes as it is.
    """

    id: str
    prompt: str
    answer: str
    messages: tuple[tuple[str, str], ...] = ()


class Task(Protocol):
    """A task as training and evaluation see it."""

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        ...

    @property
    def has_demonstrations(self) -> bool:
        """Whether there is anything for `sft` to learn from."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """What its longest solution takes, the end-of-sequence token included."""
        ...

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """The first `count` items of a split, or all; splits share no problem."""
        ...

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:
        """`count` completions that show how to solve `item`, drawn anew each time."""
        ...

    def grade(self, item: Item, completion: str) -> bool:
        """Whether `completion` (without special tokens) answers `item`."""
        ...


@runtime_checkable
class GradedTwice(Protocol):
    """A task that can tell strict grading, the answer where it was asked for, from lenient, the answer anywhere."""

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Whether the answer stands where the prompt asked for it, and is right."""
        ...

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Whether the answer that the completion seems to give is right; never False where strict grading is True."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A task that knows how many items its splits have before it is used."""

    def available(self, split: Split) -> int | None:
        """Items of a split; None if that is known only once the data is there."""
        ...
