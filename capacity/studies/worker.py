"""The life of a worker process: it takes jobs from a pipe, makes their runs and tells what happens."""

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import TERMINATED, CapacityError, DataWarning
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies.device import keep_one_gpu, take_share
from capacity.studies.finished import add_finished, record_failure
from capacity.studies.imports import import_libraries

if TYPE_CHECKING:
    from capacity.training.base import Bases
    from capacity.training.checkpoints import Checkpoints
    from capacity.training.run import RunRecord


def work(
    pipe: Any,
    folder: str,
    fingerprint_json: str,
    checkpoint_minutes: float = 0,
    gpu: str | None = None,
    share: float = 1.0,
) -> None:
    """Makes the runs of all jobs that come, until the pipe or the parent process ends.

    SIGTERM asks the process to end. A run in training makes its present step and a checkpoint first.

    A job is a word with a list of specs as JSON. After "make", what is told of a run is (kind, identity, step,
    message); see `capacity.studies.workers.Event`. The message of a step is its metrics as JSON, and that of a run that
    is done is its accuracy. After "check", the answer is that of `checked`.

    Args:
        pipe: the worker's end of the pipe.
        folder: the study that runs are added to.
        fingerprint_json: the environment of the runs.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made.
        gpu: the GPU of this process, as CUDA_VISIBLE_DEVICES names it; the first that it may see if None.
        share: the part of the GPU's memory that this process may take.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    keep_one_gpu(gpu)
    bases = prepared(fingerprint := Fingerprint.model_validate_json(fingerprint_json), share)
    worker = JobMaker(pipe, Study(Path(folder)), fingerprint)
    if checkpoint_minutes:
        worker.keep_checkpoints(checkpoint_minutes)
    signal.signal(signal.SIGTERM, lambda *_: worker.end())
    while True:
        try:
            word, job = pipe.recv()
        except EOFError:
            return
        specs = [RunSpec.model_validate(raw) for raw in job]
        if word == "check":
            pipe.send(checked(specs))
        else:
            worker.make(specs, bases)


def prepared(fingerprint: Fingerprint, share: float) -> "Bases":
    """Imports what runs need into this process, and returns its bases. What is loaded serves all runs of a worker.

    Args:
        fingerprint: the environment of the runs.
        share: the part of the GPU's memory that this process may take.
    """
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    import_libraries()
    import torch

    from capacity.training.base import Bases

    torch.set_num_threads(1)
    take_share(share)
    return Bases(fingerprint.device)


def checked(specs: Sequence[RunSpec]) -> tuple[CapacityError | None, list[str]]:
    """Returns why a model cannot be asked the prompts of its runs, or None, and what to know of the data."""
    from capacity.training.preflight import check_runs

    found: CapacityError | None = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DataWarning)
        try:
            check_runs(specs)
        except CapacityError as error:
            found = error
    texts = [str(warning.message) for warning in said if issubclass(warning.category, DataWarning)]
    return found, list(dict.fromkeys(texts))


class JobMaker:
    """Makes jobs, adds their runs to a study and tells of them through a pipe."""

    checkpoints: "Checkpoints | None" = None

    def __init__(self, pipe: Any, study: Study, fingerprint: Fingerprint) -> None:
        self.pipe, self.study, self.fingerprint = pipe, study, fingerprint

    def keep_checkpoints(self, minutes: float) -> None:
        """Makes a checkpoint of each run in training at this distance of time."""
        from capacity.training.checkpoints import Checkpoints

        self.checkpoints = Checkpoints(self.study.folder, self.fingerprint.digest, minutes, self.note)

    def end(self) -> None:
        """Ends the process: at once, or after the present step if runs are in training and keep checkpoints.

        Raises:
            SystemExit: if it ends at once.
        """
        if self.checkpoints is not None and self.checkpoints.training:
            self.checkpoints.asked = True
        else:
            raise SystemExit(TERMINATED)

    def make(self, job: list[RunSpec], bases: Any) -> None:
        """Makes the runs of a job. What goes wrong with one of them is recorded, and no error leaves."""
        records: Sequence[RunRecord | Exception]
        try:
            records = self._records(job, bases)
        except Exception as error:
            records = [error] * len(job)
        for spec, record in zip(job, records, strict=True):
            if isinstance(record, Exception):
                self._fail(spec, record)
                continue
            try:  # by itself, so that a run that cannot be added takes no other with it
                self._add(spec, record)
            except Exception as error:
                self._fail(spec, error)

    def _records(self, job: list[RunSpec], bases: Any) -> "list[RunRecord | CapacityError]":
        from capacity.training.run import execute, execute_together

        if len(job) > 1:
            return execute_together(job, self._step, bases, self.checkpoints)
        (spec,), device = job, self.fingerprint.device
        return [
            execute(
                spec,
                device,
                lambda step: self._step(spec, step),
                bases=bases,
                trainer=self.fingerprint.trainer,
                checkpoints=self.checkpoints,
            )
        ]

    def _add(self, spec: RunSpec, record: "RunRecord") -> None:
        _end_if_orphaned()
        add_finished(
            self.study, spec, self.fingerprint, record, lambda message: self._say("waiting", spec, message=message)
        )
        if self.checkpoints is not None:
            self.checkpoints.discard(spec)
        for remark in record.remarks:
            self.note(spec, remark)
        self._say("done", spec, message=str(record.result.accuracy))

    def _step(self, spec: RunSpec, step: Step) -> None:
        self._say("step", spec, step.step + 1, step.model_dump_json())

    def note(self, spec: RunSpec, message: str) -> None:
        """Tells what to know of a run."""
        self._say("note", spec, message=message)

    def _fail(self, spec: RunSpec, error: Exception) -> None:
        _end_if_orphaned()
        trace = "".join(traceback.format_exception(error))
        self._say("failed", spec, message=record_failure(self.study, spec, _message(error), trace))

    def _say(self, kind: str, spec: RunSpec, step: int = 0, message: str = "") -> None:
        try:
            self.pipe.send((kind, spec.identity, step, message))
        except OSError:
            os._exit(1)  # the parent is gone


def _message(error: Exception) -> str:
    """Returns what is said of a run that has failed, in one line."""
    if isinstance(error, CapacityError):
        return str(error)
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    if _is_want_of_memory(error):
        return f"memory ran out while it was made: use fewer --workers, or free memory ({line})"
    return line


def _is_want_of_memory(error: Exception) -> bool:
    """Tells whether the system or a GPU has refused memory. On a CPU, torch says so in words alone."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _end_if_orphaned() -> None:
    """Nothing is written after the parent died: the study may be another process's by now."""
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _follow_parent() -> None:
    """Ends this process when its parent has died, even by a signal that nobody can catch."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
