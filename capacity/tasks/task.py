"""What a task is. The same grader serves reward and evaluation, so both arms are judged alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Item:
    """One problem: `id` is unique within the task, `answer` what the grader compares with."""

    id: str
    prompt: str
    answer: str


class Task(Protocol):
    """A task as training and evaluation see it."""

    name: str
    demonstration_styles: tuple[str, ...]
    default_demonstrations: str
    max_new_tokens: int

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """The first `count` items of a split, or all; splits share no problem."""
        ...

    def demonstrations(self, item: Item, style: str, count: int, rng: np.random.Generator) -> list[str]:
        """`count` completions that show how to solve `item`, drawn in `style`."""
        ...

    def grade(self, item: Item, completion: str) -> bool:
        """Whether `completion` (without special tokens) answers `item`."""
        ...
