"""Figures are ratios of two sides, measured in turns. This module computes them and checks that the work was equal."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from capacity.errors import CapacityError

TOLERANCE = 1e-4  # relative, between numbers of both sides that should be equal: losses in fp32, rates


@dataclass(frozen=True)
class Quantity:
    """A quantity has a value of ours and one of theirs for each pair of turns.

    Attributes:
        name: what it is, with its unit.
        ours, theirs: the values, in order. `theirs` is empty if there is nothing to compare with.
    """

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """Returns ours / theirs, pair by pair."""
        return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True)) if self.theirs else ()

    @property
    def ratio(self) -> float | None:
        """Returns the median of the ratios; None if there are none."""
        return median(self.ratios) if self.theirs else None

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {"name": self.name, "ours": list(self.ours), "theirs": list(self.theirs), "ratio": self.ratio}


@dataclass(frozen=True)
class Figure:
    """A figure compares two ways of doing the same work.

    Attributes:
        section: the section of the table that it belongs to.
        subject: what was done.
        against: what ours is compared with; empty if there is nothing.
        quantities: what was measured.
        same: what was checked to be equal on both sides.
    """

    section: str
    subject: str
    against: str
    quantities: tuple[Quantity, ...]
    same: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "section": self.section,
            "subject": self.subject,
            "against": self.against,
            "quantities": [quantity.to_json() for quantity in self.quantities],
            "same": dict(self.same),
        }


def figure_of(raw: Mapping[str, Any]) -> Figure:
    """Returns a figure from its JSON."""
    quantities = tuple(Quantity(q["name"], tuple(q["ours"]), tuple(q["theirs"])) for q in raw["quantities"])
    return Figure(raw["section"], raw["subject"], raw["against"], quantities, raw["same"])


def check_same(subject: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Checks that both sides did the same work.

    Args:
        subject: what was done, for the message.
        ours, theirs: what each side says of its work. Numbers may differ by `TOLERANCE`, everything else not at all.

    Raises:
        CapacityError: if anything differs. The message names the first such part.
    """
    difference = next(_differences("", ours, theirs), None)
    if difference is not None:
        place, a, b = difference
        raise CapacityError(f"{subject}: the sides did not do the same work: {place} is {a!r} of ours, {b!r} of theirs")


def _differences(place: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _differences(f"{place}.{key}".strip("."), a.get(key), b.get(key))
    elif _is_list(a) and _is_list(b) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from _differences(f"{place}[{index}]", *pair)
    elif isinstance(a, float) and isinstance(b, (int, float)):
        if not math.isclose(a, b, rel_tol=TOLERANCE):
            yield place, a, b
    elif a != b:
        yield place, a, b


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
