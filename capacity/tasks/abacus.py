"""The abacus task asks for sums of four two-digit numbers. It needs no GPU and no network."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from capacity.errors import DataError, SpecError, unknown
from capacity.spec.parts import TaskSpec
from capacity.tasks import abacus_language as language
from capacity.tasks.task import Item, Split

SPLIT_SIZES: dict[Split, int] = {"train": 8192, "validation": 512, "test": 1024}


def partition(operands: tuple[int, ...]) -> Literal["train", "validation", "test", "pretraining"]:
    """Returns the one part that a problem belongs to.

    A hash of the operands decides, whatever their order.
    """
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


STYLES = ("worked", "own", "answers", "none")
DEFAULT_BITS, DEFAULT_SHIFT = 4, 4.0


@dataclass(frozen=True)
class AbacusTask:
    """The abacus task has one style of demonstrations. Splits and pre-training share no operands.

    Styles of demonstrations:
        worked: stepwise solutions that differ from the base's in two options (default). `style_bits` is the entropy of
            the fillers: 0, 4 or 8 bits. The base writes the three forms equally often. `style_shift` is the KL
            divergence of the words from the base's, in bits. The entropy of the words stays equal. Neither option
            changes what the other measures.
        own: stepwise solutions as the base writes them, in words and fillers.
        answers: bare answers without steps.
        none: no demonstrations, for methods that see none.
    """

    style: str = "worked"
    style_bits: int = DEFAULT_BITS
    style_shift: float = DEFAULT_SHIFT

    name = "abacus"
    max_new_tokens = 26

    @property
    def has_demonstrations(self) -> bool:
        """Tells whether the task has demonstrations for `sft`."""
        return self.style != "none"

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """Returns the first `count` items of `split`, or all of them if `count` is None.

        Raises:
            DataError: if the split has fewer than `count` items.
        """
        items = _split_items(split)
        if count is not None and count > len(items):
            raise DataError(f"abacus {split} has {len(items):,} items, {count:,} were asked for")
        return items[:count]

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:
        """Returns `count` demonstrations of `item`. Their words and fillers are drawn anew each time.

        Raises:
            SpecError: if the task was opened without demonstrations.
        """
        operands = language.operands_of(item.prompt)
        match self.style:
            case "worked":
                odds = language.hand(self.style_shift)
                return [language.stepwise(operands, odds, self.style_bits, rng) for _ in range(count)]
            case "own":
                return [language.stepwise(operands, language.SYNONYM_ODDS, None, rng) for _ in range(count)]
            case "answers":
                return [f"#{item.answer}"] * count
        raise SpecError("task abacus?demonstrations=none has no demonstrations")

    def grade(self, item: Item, completion: str) -> bool:
        """Tells whether the digits after "#" at the end of the completion match the answer exactly."""
        return language.answer_of(completion) == item.answer


def open_abacus(spec: TaskSpec) -> AbacusTask:
    """Opens the abacus task of a spec.

    Raises:
        SpecError: if the spec has options that the task does not have.
    """
    return _checked(spec.demonstrations, dict(spec.options))


def parse_abacus(options: dict[str, str]) -> TaskSpec:
    """Reads the options `demonstrations`, `style_bits` and `style_shift`.

    Raises:
        SpecError: if an option is unknown, or a value is out of range.
    """
    knobs_given: dict[str, float | str] = {name: text for name, text in options.items() if name != "demonstrations"}
    task = _checked(options.get("demonstrations", "worked"), knobs_given)
    knobs: dict[str, float | str] = {"style_bits": float(task.style_bits), "style_shift": task.style_shift}
    return TaskSpec(name="abacus", demonstrations=task.style, options=knobs if task.style == "worked" else {})


def _checked(style: str, options: dict[str, float | str]) -> AbacusTask:
    if style not in STYLES:
        raise unknown("demonstration style", style, STYLES)
    for name in options:
        if name not in ("style_bits", "style_shift"):
            raise unknown("option of task abacus", name, ("demonstrations", "style_bits", "style_shift"))
        if style != "worked":
            raise SpecError(f"task abacus: {name} belongs to demonstrations=worked, not to {style}")
    bits = _number("style_bits", options.get("style_bits", DEFAULT_BITS))
    shift = _number("style_shift", options.get("style_shift", DEFAULT_SHIFT))
    if bits not in language.STYLE_BITS:
        raise SpecError(f"task abacus: style_bits {bits:g} is out of range: choose from 0, 4, 8")
    language.hand(shift)
    return AbacusTask(style, int(bits), shift)


def _number(name: str, value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        raise SpecError(f"task abacus: {name}={value} is not a number") from None
