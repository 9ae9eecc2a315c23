"""When a comparison that adds seeds looks at its results, and what ends it. The study keeps this in `looks.json`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from capacity.errors import DataError, SpecError, unknown
from capacity.plan.hours import Spent
from capacity.runs import files
from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen
from capacity.spec.methods import Method

FILE = "looks.json"
CONTRAST: tuple[Method, Method] = ("grpo", "sft")  # what is decided: the accuracy of the first minus that of the second


class Looks(Frozen):
    """A fixed schedule of looks at a comparison. All methods have equally many seeds at each look.

    Attributes:
        first: the number of seeds at the first look.
        step: the number of seeds that are added before the next look.
        most: the number of seeds at the last look.
        margin: a share of 1. Methods whose difference lies within it count as equal; None if nothing does.
        confidence: of the intervals of all looks together.
    """

    first: Annotated[int, Field(ge=2)] = 3
    step: PositiveInt = 1
    most: Annotated[int, Field(ge=2)] = 10
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.most < self.first:
            raise ValueError(f"at most {self.most} seeds, but the first look is at {self.first}: raise --most-seeds")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """Returns the number of seeds at each look, rising."""
        return (*range(self.first, self.most, self.step), self.most)


class _Kept(Looks):
    """What `looks.json` holds: the looks that a study was begun with, and the time that it has taken."""

    spent: Spent = Spent()


def planned_looks(
    until: str | None,
    methods: Sequence[Method],
    seeds: int | None,
    most: int | None,
    margin: float | None,
    within: float | None,
) -> Looks | None:
    """Returns the looks of a comparison that adds seeds; None if it does not.

    Args:
        until: "decided", or None.
        methods: what is trained.
        seeds: of the first look; the default if None.
        most: the largest number of seeds; the default if None, or `seeds` where that is larger.
        margin: as of `Looks`.
        within: hours that may be spent; None for no limit.

    Raises:
        SpecError: an option is missing, out of range, or makes no sense with the others.
    """
    if until is None:
        options = (("--most-seeds", most), ("--margin", margin), ("--within", within))
        stray = [name for name, value in options if value is not None]
        if stray:
            raise SpecError(f"{stray[0]} belongs to --until decided: add that, or leave {stray[0]} out")
        return None
    if until != "decided":
        raise unknown("end of a comparison", until, ["decided"])
    absent = [method for method in CONTRAST if method not in methods]
    if absent:
        raise SpecError(f"--until decided is about {' − '.join(CONTRAST)}: add {absent[0]} to --methods")
    if within is not None and not 0 < within < math.inf:
        raise SpecError(f"--within {within:g}: give a number of hours above 0")
    first = Looks.model_fields["first"].default if seeds is None else seeds
    largest = max(first, Looks.model_fields["most"].default) if most is None else most
    try:
        return Looks(first=first, most=largest, margin=margin)
    except ValidationError as error:
        raise SpecError(f"--until decided: {fault_of(error, Looks)}") from None


def read_looks(study: Path) -> Looks | None:
    """Returns the looks that a study was begun with; None if it was made at once.

    Raises:
        DataError: if the record is unreadable. The message names the field.
    """
    found = _read(study)
    return None if found is None else Looks.model_validate(found.model_dump(exclude={"spent"}))


def read_spent(study: Path) -> Spent:
    """Returns the time that a comparison has taken, as its study keeps it.

    Raises:
        DataError: if the record is unreadable. The message names the field.
    """
    found = _read(study)
    return Spent() if found is None else found.spent


def keep_looks(study: Path, looks: Looks) -> Spent:
    """Writes the looks of a study down before the first run is made. Returns the time that it has taken.

    Raises:
        DataError: if the study was begun with other looks, or the record cannot be written.
    """
    found = read_looks(study)
    if found is None:
        keep_spent(study, looks, Spent())
    elif found != looks:
        raise DataError(
            f"{study / FILE}: this study was begun with {_words(found)}, not with {_words(looks)}: "
            "give the same options, or choose another --out"
        )
    return read_spent(study)


def keep_spent(study: Path, looks: Looks, spent: Spent) -> None:
    """Writes down the time that a comparison has taken, beside its looks.

    Raises:
        DataError: if the record cannot be written.
    """
    kept = _Kept(**looks.model_dump(), spent=spent)
    files.write_atomically(study / FILE, files.json_text(kept.model_dump(mode="json")))


def _read(study: Path) -> _Kept | None:
    path = study / FILE
    return files.read_record(path, _Kept) if path.exists() else None


def _words(looks: Looks) -> str:
    margin = "no margin" if looks.margin is None else f"a margin of {looks.margin:g}"
    return f"looks at {looks.first} to {looks.most} seeds and {margin}"
