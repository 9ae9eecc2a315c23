"""The baseline file: what a study measured, small enough to commit, checked when it is read.

For each cell (`capacity.runs.cell`) the file holds the spec without its seeds. For each run it holds the outcome of
every answer as a bit, so a later study can be compared answer by answer. It is JSON with a checksum, and moves only
when it is written anew.

Version 2 added an optional field, `adapter_seed` of a run, and version 3 another, `base` of a cell. A baseline is
written in the oldest version that can hold it. Version 1 kept adapters of a fixed seed in cells of their own, which are
joined here.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, ValidationError, model_serializer

from capacity.errors import DataError, MissingPathError
from capacity.runs.answers import Bits, unpacked
from capacity.runs.cell import Cell, cell_of, seeds_of
from capacity.runs.fingerprint import Fingerprint
from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen, canonical_json
from capacity.spec.run import RunSpec, load_spec

FORMAT = "capacity baseline"
# Stands in the spec of a cell in the place of the adapter's seed, which is the run's unless the run names another.
OF_THE_RUN = "seed"
_RESTORE = "restore it from version control, or make it anew with `capacity baseline`"


class StoredRun(Frozen):
    """One run of a cell.

    Attributes:
        seed: of the run.
        adapter_seed: of the adapter's random part, where it is another than that of the run.
        update_bytes: the payload of its update.
        n_correct: correct answers.
        answers: one bit an answer, as `Answers.packed` writes them.
    """

    seed: Annotated[int, Field(ge=0)]
    adapter_seed: Annotated[int, Field(ge=0)] | None = None
    update_bytes: Annotated[int, Field(ge=0)]
    n_correct: Annotated[int, Field(ge=0)]
    answers: str

    @model_serializer(mode="wrap")
    def _as_in_version_1(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.adapter_seed is None:
            fields.pop("adapter_seed")
        return fields

    @property
    def seeds(self) -> tuple[int, int]:
        """What tells the run apart in its cell, as `capacity.runs.cell.seeds_of` gives it."""
        return self.seed, self.seed if self.adapter_seed is None else self.adapter_seed


class StoredCell(Frozen):
    """All runs of one cell.

    Attributes:
        spec: the JSON of their spec without the run's seed; the adapter's seed is the word "seed".
        trained_parameters: scalars that the optimiser changed.
        items_digest: SHA-256 of the names of the items, 16 hex digits.
        contents_digest: SHA-256 of names, prompts and answers; empty for runs that did not record it.
        base: SHA-256 over the weights of the untrained model; None for runs that did not record it.
        runs: by their seeds.
    """

    spec: dict[str, Any]
    model_parameters: PositiveInt
    family: str
    base: str | None = None
    trained_parameters: Annotated[int, Field(ge=0)]
    n_items: PositiveInt
    items_digest: str
    contents_digest: str = ""
    runs: Annotated[tuple[StoredRun, ...], Field(min_length=1)]

    @model_serializer(mode="wrap")
    def _as_in_version_2(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.base is None:
            fields.pop("base")
        return fields

    @cached_property
    def cell(self) -> Cell:
        """The cell that its runs belong to, without its base: old baselines have none, so bases are compared apart."""
        return cell_of(self.spec_of(self.runs[0], "baseline"))

    def spec_of(self, run: StoredRun, where: str) -> RunSpec:
        """The spec of one of its runs.

        Raises:
            DataError: not a spec; `where` is named.
        """
        adapter = self.spec.get("adapter")
        if isinstance(adapter, dict):
            adapter = {name: run.seeds[1] if value == OF_THE_RUN else value for name, value in adapter.items()}
        return load_spec({**self.spec, "adapter": adapter, "seed": run.seed}, where)

    @property
    def label(self) -> str:
        """A short description: "grpo tinylora 84", "base T=1"."""
        spec = self.cell.spec
        if spec.method == "zero":
            return f"zero {spec.adapter.kind} {spec.adapter.label}"
        if spec.training is None:
            split = "" if spec.evaluation.split == "test" else f" {spec.evaluation.split}"
            return f"{spec.method} T={spec.evaluation.temperature:g}{split}"
        return f"{spec.method} {spec.adapter.kind} {self.trained_parameters:,}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs, rising, each once however many adapter seeds it was run with."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def n_answers(self) -> int:
        """Answers of one run: items × samples of each."""
        return self.n_items * self.cell.spec.evaluation.samples_per_item

    @property
    def answers_per_seed(self) -> int:
        """Answers behind the accuracy of a seed, the mean over its seeds."""
        return self.n_answers * len(self.runs) // len(self.seeds)

    def accuracy(self, seed: int) -> float:
        """The share of correct answers of the runs with this seed."""
        correct = [run.n_correct for run in self.runs if run.seed == seed]
        return sum(correct) / (len(correct) * self.n_answers)

    def answers(self, run: StoredRun) -> Bits:
        """Which answers of a run were correct, item by item, samples of an item in a row, (n_answers,)."""
        return unpacked(run.answers, self.n_answers, "baseline")


class Baseline(Frozen):
    """What `capacity baseline` writes, without the checksum."""

    format: Literal["capacity baseline"] = "capacity baseline"
    version: Literal[1, 2, 3] = 1
    study: str
    fingerprint: Fingerprint
    cells: Annotated[tuple[StoredCell, ...], Field(min_length=1)]

    @property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def to_text(self) -> str:
        """The file: indented JSON, stable in order, so that a diff shows what moved."""
        return json.dumps({"checksum": self.checksum, **self.model_dump(mode="json")}, indent=1, allow_nan=False) + "\n"


def baseline_of(study: str, fingerprint: Fingerprint, cells: Sequence[StoredCell]) -> Baseline:
    """A baseline of these cells, in the oldest version that can hold it."""
    apart = any(run.adapter_seed is not None for cell in cells for run in cell.runs)
    based = any(cell.base is not None for cell in cells)
    version: Literal[1, 2, 3] = 3 if based else 2 if apart else 1
    return Baseline(version=version, study=study, fingerprint=fingerprint, cells=tuple(cells))


def stored_spec(spec: RunSpec) -> dict[str, Any]:
    """The spec of a run as it stands in `StoredCell.spec`."""
    raw = spec.model_dump(mode="json", exclude={"seed"})
    if spec.adapter.seed_field is not None:
        raw["adapter"][spec.adapter.seed_field] = OF_THE_RUN
    return raw


def own_adapter_seed(spec: RunSpec) -> int | None:
    """The seed of the adapter's random part, None if it is that of the run: what `StoredRun.adapter_seed` holds."""
    seed, of_adapter = seeds_of(spec)
    return None if of_adapter == seed else of_adapter


def read_baseline(path: Path) -> Baseline:
    """A baseline file, after every check that can be made without the study.

    Raises:
        DataError: missing, truncated, edited, of another version, or not a baseline; what to do is said.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise MissingPathError(f"{path}: no such file: make it with `capacity baseline STUDY -o {path.name}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not whole JSON, as if cut off or edited: {_RESTORE}") from None
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise DataError(f"{path}: not a baseline: make one with `capacity baseline STUDY -o FILE`")
    if stored.get("version") not in (1, 2, 3):
        raise DataError(
            f"{path}: baseline of format version {stored.get('version')}, this program reads 1 to 3: "
            "use the program that made it, or make it anew with `capacity baseline`"
        )
    checksum = stored.pop("checksum", None)
    digest = hashlib.sha256(canonical_json(stored).encode()).hexdigest()
    if checksum != digest:
        raise DataError(f"{path}: was edited (its checksum differs): {_RESTORE}")
    try:
        baseline = Baseline.model_validate(stored)
    except ValidationError as error:
        raise DataError(f"{path}: not a valid baseline: {fault_of(error, Baseline)}: {_RESTORE}") from None
    cells = _joined([_checked(cell, path) for cell in baseline.cells], path)
    return baseline_of(baseline.study, baseline.fingerprint, cells)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _checked(stored: StoredCell, path: Path) -> StoredCell:
    """The cell with its spec in the current schema, after checking that its parts fit together.

    Raises:
        DataError: they do not.
    """
    specs = [stored.spec_of(run, str(path)) for run in stored.runs]
    runs = [
        run.model_copy(update={"adapter_seed": own_adapter_seed(spec)})
        for run, spec in zip(stored.runs, specs, strict=True)
    ]
    stored = stored.model_copy(update={"spec": stored_spec(specs[0]), "runs": tuple(runs)})
    for run in runs:
        try:
            correct = int(stored.answers(run).sum())
        except DataError:
            raise DataError(
                f"{path}: {stored.label}: the answers of a run are not {stored.n_answers} bits: {_RESTORE}"
            ) from None
        if correct != run.n_correct:
            raise DataError(f"{path}: {stored.label}: its answers and its n_correct disagree: {_RESTORE}")
    return stored


def _joined(parts: Sequence[StoredCell], path: Path) -> list[StoredCell]:
    """The cells that the parts of a file make up.

    Raises:
        DataError: a run stands there twice, or parts of one cell answered other items or are of other sizes.
    """
    found: dict[Cell, StoredCell] = {}
    for part in parts:
        first = found.setdefault(part.cell, part)
        if first is not part:
            if first.model_copy(update={"runs": part.runs}) != part:
                raise DataError(f"{path}: {part.label}: two of its cells have the same spec: {_RESTORE}")
            runs = sorted((*first.runs, *part.runs), key=lambda run: run.seeds)
            found[part.cell] = first.model_copy(update={"runs": tuple(runs)})
    for cell in found.values():
        if len({run.seeds for run in cell.runs}) < len(cell.runs):
            raise DataError(f"{path}: {cell.label}: a seed stands there twice: {_RESTORE}")
    return list(found.values())
