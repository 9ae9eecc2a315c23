"""The abacus task: sums of four two-digit numbers, the embedded test bed that needs no GPU and no network."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from capacity.errors import DataError, unknown
from capacity.tasks import abacus_language as language
from capacity.tasks.task import Item, Split

SPLIT_SIZES: dict[Split, int] = {"train": 8192, "validation": 512, "test": 1024}


def partition(operands: tuple[int, ...]) -> Literal["train", "validation", "test", "pretraining"]:
    """The one part that a problem belongs to, by a hash of its operands whatever their order."""
    text = "abacus|" + "+".join(map(str, sorted(operands)))
    byte = hashlib.sha256(text.encode()).digest()[0]
    if byte < 16:
        return "test"
    if byte < 32:
        return "validation"
    return "train" if byte < 96 else "pretraining"


@cache
def _split_items(split: Split) -> tuple[Item, ...]:
    items: list[Item] = []
    seen: set[tuple[int, ...]] = set()
    counter = 0
    while len(items) < SPLIT_SIZES[split]:
        digest = hashlib.sha256(f"abacus|{split}|{counter}".encode()).digest()
        counter += 1
        operands = tuple(10 + int.from_bytes(digest[8 * i : 8 * i + 8]) % 90 for i in range(4))
        key = tuple(sorted(operands))
        if key in seen or partition(operands) != split:
            continue
        seen.add(key)
        items.append(Item(f"{split}-{len(items)}", language.prompt(operands), str(sum(operands))))
    return tuple(items)


class AbacusTask:
    """Problems, demonstrations and grader. Splits are disjoint by operands, and from pre-training.

    Demonstration styles:
        worked: the stepwise solution in another hand, the same steps in other words (default).
        own: the stepwise solution in the base model's own words.
        answers: the bare answer, without steps.
    """

    name = "abacus"
    demonstration_styles: tuple[str, ...] = ("worked", "own", "answers")
    default_demonstrations = "worked"
    max_new_tokens = 24

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """The first `count` items of `split`, or all.

        Raises:
            DataError: the split has fewer than `count`.
        """
        items = _split_items(split)
        if count is not None and count > len(items):
            raise DataError(f"abacus {split} has {len(items)} items, {count} were asked for")
        return items[:count]

    def demonstrations(self, item: Item, style: str, count: int, rng: np.random.Generator) -> list[str]:
        """`count` demonstrations of `item`, their words drawn anew each time."""
        operands = language.operands_of(item.prompt)
        match style:
            case "worked":
                form: language.Style = "stepwise"
                odds = language.OTHER_HAND_ODDS
            case "own":
                form, odds = "stepwise", language.SYNONYM_ODDS
            case "answers":
                form, odds = "terse", language.SYNONYM_ODDS
            case _:
                raise unknown("demonstration style", style, self.demonstration_styles)
        return [language.completion(operands, form, odds, rng) for _ in range(count)]

    def grade(self, item: Item, completion: str) -> bool:
        """Exact match of the digits after "#" at the end of the completion."""
        return language.answer_of(completion) == item.answer
