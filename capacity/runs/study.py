"""A study folder holds run folders, a lock, and the diagnoses of runs that failed.

    STUDY/capacity-study.json      the marker of a study folder
    STUDY/plan.json                the specs that were planned
    STUDY/runs/<identity>/         complete runs, immutable, with checksums
    STUDY/failed/<identity>.json   the diagnoses of runs that failed
    STUDY/partial/<identity>/      unfinished runs; what a crash leaves here is removed
    STUDY/checkpoints/             runs in training, which continue from there

Copying run folders from one study to another merges the studies.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from capacity.errors import DataError, MissingPathError, StudyLockedError
from capacity.runs import files, study_folder
from capacity.runs.answers import Answers, answers_of
from capacity.runs.cell import Cell, cell_of, order
from capacity.runs.checked import LARGE, CheckedRuns
from capacity.runs.fingerprint import Fingerprint
from capacity.spec.frozen import canonical_json
from capacity.spec.result import Outcome, Result, Step
from capacity.spec.run import SCHEMA_VERSION, RunSpec, load_spec

State = Literal["complete", "stale", "missing"]


@dataclass(frozen=True)
class Run:
    """A `Run` is a complete run, read from its folder."""

    folder: Path
    spec: RunSpec
    fingerprint: Fingerprint
    result: Result

    @cached_property
    def identity(self) -> str:
        """Returns the identity of its spec. It is the hash of the whole spec, and large studies ask for it often."""
        return self.spec.identity

    @property
    def short_id(self) -> str:
        """Returns the first 16 hex digits of its identity."""
        return self.identity[:16]

    @property
    def cell(self) -> Cell:
        """Returns the cell of the run: its recipe, and the base that it was made on."""
        return cell_of(self.spec, self.result.base_fingerprint)

    def state(self, fingerprint: Fingerprint, base_files: str | None) -> State:
        """Returns "complete" if the run would be made alike here and now, and else "stale".

        Args:
            fingerprint: the environment here and now.
            base_files: the digest of the files that the model would be loaded from now; None if it is not known.
        """
        same_base = base_files is None or self.result.base_files in (None, base_files)
        return "complete" if self.fingerprint == fingerprint and same_base else "stale"

    def outcomes(self) -> tuple[Outcome, ...]:
        """Returns the answers to each item, in the order of the evaluation.

        Raises:
            DataError: if a line of the file is not an outcome.
        """
        return files.read_records(self.folder / "outcomes.jsonl", Outcome)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Returns the metrics of each training step. The base has no steps.

        Raises:
            DataError: if a line of the file is not a step.
        """
        return files.read_records(self.folder / "metrics.jsonl", Step)

    @cached_property
    def answers(self) -> Answers:
        """Returns the graded answers as an array.

        Raises:
            DataError: if a line is not an outcome, or there are no answers. The same error says that the number of
                samples per item differs from that of the protocol.
        """
        return self._graded(self.outcomes())

    def _graded(self, outcomes: Sequence[Outcome]) -> Answers:
        found = answers_of(outcomes, str(self.folder / "outcomes.jsonl"))
        if found.correct.shape[1] != self.spec.evaluation.samples_per_item:
            raise DataError(f"{self.folder}: its outcomes and its protocol disagree in the number of answers")
        return found

    def check(self) -> None:
        """Checks that the result of the run says what its outcomes say.

        Raises:
            DataError: if they contradict each other. The message names the field.
        """
        outcomes, said = self.outcomes(), self.result
        vars(self)["answers"] = self._graded(outcomes)  # or they would be read a second time
        correct = int(self.answers.correct.sum())
        counted: dict[str, float] = {
            "n_items": len(outcomes),
            "n_correct": correct,
            "accuracy": correct / self.answers.correct.size,
        }
        for name in ("strict", "lenient"):
            grades = [getattr(outcome, name) for outcome in outcomes]
            if None not in grades:
                counted[f"n_{name}"] = sum(map(sum, grades))
        for name, value in counted.items():
            recorded = getattr(said, name)
            if recorded is not None and not math.isclose(recorded, value, rel_tol=1e-12):
                raise DataError(
                    f"{self.folder}: result.json says {name} {recorded} where outcomes.jsonl has {value}: "
                    "remove the folder to run it again"
                )


@dataclass(frozen=True)
class Failure:
    """A failure holds the diagnosis of a run that gave no result. `run` is the name its folder would have."""

    run: str
    label: str
    message: str
    traceback: str


class Study:
    """A study reads and writes one study folder. Reading needs no lock, but whoever adds runs holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def runs_folder(self) -> Path:
        """Returns the folder of the complete runs."""
        return self.folder / "runs"

    def check_there(self) -> None:
        """Checks that the folder is still there, with its marker. It may be removed while its runs are made.

        Raises:
            FileNotFoundError: if it is not.
        """
        (self.folder / study_folder.MARKER).stat()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of the study for writing. The system frees the lock of a process that dies.

        Raises:
            StudyLockedError: if another process works on this study.
            DataError: if the folder is neither empty nor a study, or cannot be made.
        """
        study_folder.claim(self.folder)
        lock = FileLock(self.folder / study_folder.LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StudyLockedError(
                f"study {self.folder} is in use by another process: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise DataError(f"study folder {self.folder} cannot be locked: {error.strerror}") from None
        try:
            try:
                self._tidy()
            except OSError as error:
                raise DataError(f"study folder {self.folder} cannot be written: {error.strerror}") from None
            yield
        finally:
            try:
                with suppress(OSError):  # a folder that cannot be written any more must not hide why the work ended
                    self._tidy()
            finally:
                lock.release()

    def _tidy(self) -> None:
        """Removes what runs that were not finished have left, and the checkpoints of complete runs."""
        study_folder.discard_unfinished(self.folder)
        study_folder.discard_checkpoints(self.folder)

    def path_of(self, spec: RunSpec) -> Path:
        """Returns the folder of a run with this spec. The folder need not exist."""
        return self.runs_folder / spec.short_id

    def read(self, folder: Path, checked: CheckedRuns | None = None) -> Run:
        """Reads a run after it has checked the checksum of every file, and that its files agree.

        Args:
            folder: the folder of the run.
            checked: runs that need no check, because their files have not changed since the last one.

        Raises:
            DataError: if a file is unreadable or corrupt, or contradicts another. The message names it.
        """
        known = None if checked is None else checked.answers(folder)
        if known is None:
            files.verify(folder)
        stored = files.read_json(folder / "spec.json")
        # A run keeps the name that its spec had when it was made, whatever later schema versions make of it.
        name = hashlib.sha256(canonical_json(stored).encode()).hexdigest()[:16]
        if folder.name != name:
            raise DataError(f"{folder}: its spec has the identity {name}: the folder was renamed or edited")
        spec = load_spec(stored, str(folder / "spec.json"))
        try:
            fingerprint = Fingerprint.model_validate(files.read_json(folder / "fingerprint.json"))
        except ValueError:
            raise DataError(f"{folder / 'fingerprint.json'}: not a fingerprint") from None
        run = Run(folder, spec, fingerprint, files.read_record(folder / "result.json", Result))
        if known is not None:
            vars(run)["answers"] = known
            return run
        run.check()
        if checked is not None:
            checked.remember(folder, run.answers)
        return run

    def runs(self) -> list[Run]:
        """Returns all complete runs, sorted by model, task, method, size, learning rate, protocol and seed.

        Runs that are equal in all of these are sorted by the names of their folders.

        Raises:
            DataError: if there is no such study, or a run folder is unreadable or corrupt.
        """
        if not self.folder.is_dir():
            raise MissingPathError(f"{self.folder}: no such study folder")
        study_folder.check_format(self.folder)
        if not self.runs_folder.is_dir():
            raise DataError(f"{self.folder}: not a study folder (it has no runs/)")
        folders = [folder for folder in sorted(self.runs_folder.iterdir()) if folder.is_dir()]
        checked = CheckedRuns.of(self.folder) if len(folders) >= LARGE else None
        found = [self.read(folder, checked) for folder in folders]
        if checked is not None:
            checked.save()
        return sorted(found, key=lambda run: order(run.spec, run.result.trained_parameters))

    def find(
        self, spec: RunSpec, fingerprint: Fingerprint, bases: Mapping[str, str | None] | None = None
    ) -> tuple[State, Run | None]:
        """Returns the state of a run in this study, and the run itself if it is there.

        The state is "complete" if the run was made with this fingerprint and on this base. It is "stale" if with
        another environment or base, and else "missing".

        Args:
            spec: the spec of the run.
            fingerprint: the environment here and now.
            bases: by model the digest of the files that it would be loaded from now. Models that it lacks, or that
                have None there, are taken to be unchanged.

        Raises:
            DataError: if the folder of the run is unreadable or corrupt.
        """
        folder = self.held(spec)
        if folder is None:
            return "missing", None
        run = self.read(folder)
        return run.state(fingerprint, (bases or {}).get(spec.model)), run

    def held(self, spec: RunSpec) -> Path | None:
        """Returns the folder of the run with this spec, which an older schema version may have named; None if none."""
        folder = self.path_of(spec)
        if folder.is_dir():
            return folder
        older = self._older.get(spec.identity)
        return older if older is not None and older.is_dir() else None

    @cached_property
    def _older(self) -> dict[str, Path]:
        """The folders of runs whose specs have an older schema version, by today's identity. None is ever added."""
        found = {}
        for path in sorted(self.runs_folder.glob("*/spec.json")):
            raw = files.read_json(path)
            if isinstance(raw, dict) and raw.get("schema_version") != SCHEMA_VERSION:
                found[load_spec(raw, str(path)).identity] = path.parent
        return found

    @property
    def has_plan(self) -> bool:
        """Tells whether the study says which runs were planned. Whoever makes runs writes that down."""
        return (self.folder / study_folder.PLAN).exists()

    def write_plan(self, specs: Sequence[RunSpec]) -> None:
        """Adds specs to `plan.json`, so that a reader can tell which runs are missing."""
        planned = {s.identity: s for s in [*self.plan(), *specs]}
        text = json.dumps([s.model_dump(mode="json") for s in planned.values()], indent=1)
        files.write_atomically(self.folder / study_folder.PLAN, text + "\n")

    def plan(self) -> list[RunSpec]:
        """Returns the specs that were planned.

        Raises:
            DataError: if the plan is unreadable.
        """
        path = self.folder / study_folder.PLAN
        if not self.has_plan:
            return []
        stored = files.read_json(path)
        if not isinstance(stored, list):
            raise DataError(f"{path}: not a list of specs")
        return [load_spec(raw, str(path)) for raw in stored]

    def failures(self) -> list[Failure]:
        """Returns the runs that failed when they were last tried.

        Raises:
            DataError: if a record is unreadable. It can be removed.
        """
        found = []
        for path in sorted((self.folder / "failed").glob("*.json")):
            raw = files.read_json(path)
            if not isinstance(raw, dict) or not {"label", "message", "traceback"} <= set(raw):
                raise DataError(f"{path}: not the record of a failure: remove it")
            found.append(Failure(path.stem, raw["label"], raw["message"], raw["traceback"]))
        return found

    def add(
        self,
        spec: RunSpec,
        fingerprint: Fingerprint,
        result: Result,
        steps: Sequence[Step],
        outcomes: Sequence[Outcome],
        artifact: bytes | None,
    ) -> Path:
        """Adds a complete run and returns its folder.

        The run is written to `partial/`, sealed, and then moved to its place in one step. `artifact` holds the trained
        update as stored, with the recipe that rebuilds it. It is None for a run without an update.

        Raises:
            DataError: if the study has this run from another environment.
            OSError: if the study cannot be written. Nothing is left of the run.
        """
        prints = canonical_json(fingerprint.model_dump(mode="json"))
        with study_folder.unfinished(self.folder, spec.short_id) as partial:
            (partial / "spec.json").write_text(spec.canonical_json() + "\n", encoding="utf-8")
            (partial / "fingerprint.json").write_text(prints + "\n", encoding="utf-8")
            files.write_json(partial / "result.json", result.model_dump(mode="json"))
            files.write_records(partial / "metrics.jsonl", steps)
            files.write_records(partial / "outcomes.jsonl", outcomes)
            if artifact is not None:
                (partial / files.ARTIFACT).write_bytes(artifact)
            files.seal(partial)
            return self._publish(partial, spec, fingerprint)

    def adopt(self, run: Run) -> Path:
        """Copies a complete run of another study into this one, and returns its folder.

        Raises:
            DataError: if the study has this run from another environment.
            OSError: if the study cannot be written. Nothing is left of the run.
        """
        with study_folder.unfinished(self.folder, run.folder.name) as partial:
            for path in run.folder.iterdir():
                shutil.copyfile(path, partial / path.name)
            files.sync(partial)
            return self._publish(partial, run.spec, run.fingerprint)

    def discard(self, run: Run) -> None:
        """Removes a run of this study. `Study.read` has seen that its folder holds nothing else."""
        study_folder.discard(run.folder)

    def _publish(self, partial: Path, spec: RunSpec, fingerprint: Fingerprint) -> Path:
        """Moves a sealed folder to its place, unless the run is there already."""
        destination = self.path_of(spec)
        if destination.is_dir() and self.read(destination).fingerprint != fingerprint:
            raise DataError(f"{destination}: was made in another environment, and runs are immutable")
        files.publish(partial, destination)
        (self.folder / "failed" / f"{spec.short_id}.json").unlink(missing_ok=True)
        return destination

    def add_failure(self, spec: RunSpec, message: str, traceback: str) -> None:
        """Keeps the diagnosis of a run that failed. The run is tried again the next time."""
        record = {
            "label": spec.label,
            "message": message,
            "traceback": traceback,
            "spec": spec.model_dump(mode="json"),
        }
        path = self.folder / "failed" / f"{spec.short_id}.json"
        files.write_atomically(path, json.dumps(record, indent=1) + "\n")
