"""The baseline file: what a study measured, small enough to commit, checked when it is read.

Runs that differ in nothing but the seed form a *cell*: one method at one size under one protocol. The file holds, for
each cell, the spec without its seed, and for each run the outcome of every answer as a bit, so a later study can be
compared answer by answer. It is JSON with a checksum, and moves only when it is written anew.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, ValidationError

from capacity.errors import DataError
from capacity.runs.fingerprint import Fingerprint
from capacity.spec.frozen import Frozen, canonical_json
from capacity.spec.run import RunSpec, load_spec

FORMAT = "capacity baseline"
VERSION = 1
# Stands in a cell's spec where its runs have a number that equals their seed.
OF_THE_RUN = "seed"
_RESTORE = "restore it from version control, or make it anew with `capacity baseline`"


class StoredRun(Frozen):
    """One run. `answers`: one bit an answer, right or wrong, item by item, eight a byte, base64."""

    seed: Annotated[int, Field(ge=0)]
    update_bytes: Annotated[int, Field(ge=0)]
    n_correct: Annotated[int, Field(ge=0)]
    answers: str


class Cell(Frozen):
    """All runs of one method, size and protocol.

    Attributes:
        items_digest: SHA-256 of the names of the items, 16 hex digits.
        contents_digest: that of prompts and answers with them; empty for runs that did not record it.
    """

    spec: dict[str, Any]
    model_parameters: PositiveInt
    family: str
    trained_parameters: Annotated[int, Field(ge=0)]
    n_items: PositiveInt
    items_digest: str
    contents_digest: str = ""
    runs: Annotated[tuple[StoredRun, ...], Field(min_length=1)]

    @property
    def key(self) -> str:
        """The spec without its seed as canonical JSON: equal keys, equal protocols."""
        return canonical_json(self.spec)

    @property
    def first_spec(self) -> RunSpec:
        """The spec of the first run."""
        return spec_of(self.spec, self.runs[0].seed, "baseline")

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def n_answers(self) -> int:
        """Items × samples of each."""
        return self.n_items * int(self.spec["evaluation"]["samples_per_item"])

    def accuracy(self, seed: int) -> float:
        """Share of right answers of the run with this seed."""
        return next(run.n_correct for run in self.runs if run.seed == seed) / self.n_answers

    def answers(self, seed: int) -> NDArray[np.bool_]:
        """Which answers of a run were right, item by item, samples of an item in a row."""
        text = next(run.answers for run in self.runs if run.seed == seed)
        return _unpack(text, self.n_answers)


class Baseline(Frozen):
    """What `capacity baseline` writes, without the checksum."""

    format: Literal["capacity baseline"] = "capacity baseline"
    version: Literal[1] = 1
    study: str
    fingerprint: Fingerprint
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]

    @property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def to_text(self) -> str:
        """The file: indented JSON, stable in order, so that a diff shows what moved."""
        return json.dumps({"checksum": self.checksum, **self.model_dump(mode="json")}, indent=1, allow_nan=False) + "\n"


def read_baseline(path: Path) -> Baseline:
    """A baseline file, after every check that can be made without the study.

    Raises:
        DataError: missing, truncated, edited, of another version, or not a baseline; what to do is said.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: make it with `capacity baseline STUDY -o {path.name}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not whole JSON, as if cut off or edited: {_RESTORE}") from None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise DataError(f"{path}: not a baseline: make one with `capacity baseline STUDY -o FILE`")
    if stored.get("version") != VERSION:
        raise DataError(
            f"{path}: baseline of format version {stored.get('version')}, this program reads {VERSION}: "
            "use the program that made it, or make it anew with `capacity baseline`"
        )
    checksum = stored.pop("checksum", None)
    digest = hashlib.sha256(canonical_json(stored).encode()).hexdigest()
    if checksum != digest:
        raise DataError(f"{path}: was edited (its checksum differs): {_RESTORE}")
    try:
        baseline = Baseline.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: not a valid baseline: {place}: {first['msg']}: {_RESTORE}") from None
    baseline = baseline.model_copy(update={"cells": tuple(_checked(cell, path) for cell in baseline.cells)})
    if len({cell.key for cell in baseline.cells}) < len(baseline.cells):
        raise DataError(f"{path}: two of its cells have the same spec: {_RESTORE}")
    return baseline


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def spec_of(template: dict[str, Any], seed: int, where: str) -> RunSpec:
    """The spec of the run of a cell that has this seed.

    Raises:
        DataError: not a spec.
    """
    adapter = template.get("adapter")
    if isinstance(adapter, dict):
        adapter = {name: seed if value == OF_THE_RUN else value for name, value in adapter.items()}
    return load_spec({**template, "adapter": adapter, "seed": seed}, where)


def seedless(raw: dict[str, Any]) -> dict[str, Any]:
    """A spec without its seed and those of the adapter's random choices."""
    adapter = {name: value for name, value in raw["adapter"].items() if not is_seed(name)}
    return {**{name: value for name, value in raw.items() if name != "seed"}, "adapter": adapter}


def is_seed(name: str) -> bool:
    """Whether a field of an adapter is the seed of a random choice."""
    return name.endswith("_seed")


def _checked(cell: Cell, path: Path) -> Cell:
    """The cell with its spec in the current schema, after checking that its parts fit together.

    Raises:
        DataError: they do not.
    """
    spec = spec_of(cell.spec, cell.runs[0].seed, str(path))
    current = spec.model_dump(mode="json", exclude={"seed"})
    follow = {name: value for name, value in cell.spec["adapter"].items() if value == OF_THE_RUN}
    cell = cell.model_copy(update={"spec": {**current, "adapter": {**current["adapter"], **follow}}})
    if len(set(cell.seeds)) < len(cell.seeds):
        raise DataError(f"{path}: {spec.label}: a seed stands there twice: {_RESTORE}")
    for run in cell.runs:
        if int(_unpack(run.answers, cell.n_answers, path).sum()) != run.n_correct:
            raise DataError(f"{path}: {spec.label}: its answers and its n_correct disagree: {_RESTORE}")
    return cell


def _unpack(text: str, count: int, path: Path | None = None) -> NDArray[np.bool_]:
    """`count` bits from base64.

    Raises:
        DataError: too few or too many.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except ValueError:
        packed = np.zeros(0, dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise DataError(f"{path or 'baseline'}: answers of a run are not {count} bits: {_RESTORE}")
    return np.unpackbits(packed, count=count).astype(bool)
