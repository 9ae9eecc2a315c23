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

from capacity.errors import CapacityError, DataWarning
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.device import keep_one_gpu
from capacity.studies.finished import add_finished, record_failure
from capacity.studies.imports import import_libraries

if TYPE_CHECKING:
    from capacity.training.run import RunRecord


def work(pipe: Any, folder: str, fingerprint_json: str) -> None:
    """Makes the runs of all jobs that come, until the pipe or the parent process ends.

    A job is a word with a list of specs as JSON. After "make", what is told of a run is (kind, identity, step,
    message); see `capacity.studies.workers.Event`. After "check", the answer is that of `checked`.

    Args:
        pipe: the worker's end of the pipe.
        folder: the study that runs are added to.
        fingerprint_json: the environment of the runs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    keep_one_gpu()
    import_libraries()
    import torch

    from capacity.training.base import Bases

    torch.set_num_threads(1)
    fingerprint = Fingerprint.model_validate_json(fingerprint_json)
    worker = _Worker(pipe, Study(Path(folder)), fingerprint)
    bases = Bases(fingerprint.device)  # what is loaded serves all runs of this worker
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


class _Worker:
    """Makes jobs, adds their runs to a study and tells the parent of them."""

    def __init__(self, pipe: Any, study: Study, fingerprint: Fingerprint) -> None:
        self.pipe, self.study, self.fingerprint = pipe, study, fingerprint

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
            return execute_together(job, lambda spec, step: self._say("step", spec, step.step + 1), bases)
        (spec,), device = job, self.fingerprint.device
        trainer = self.fingerprint.trainer
        return [
            execute(spec, device, lambda step: self._say("step", spec, step.step + 1), bases=bases, trainer=trainer)
        ]

    def _add(self, spec: RunSpec, record: "RunRecord") -> None:
        _end_if_orphaned()
        add_finished(
            self.study, spec, self.fingerprint, record, lambda message: self._say("waiting", spec, message=message)
        )
        self._say("done", spec)

    def _fail(self, spec: RunSpec, error: Exception) -> None:
        message = str(error) if isinstance(error, CapacityError) else f"{type(error).__name__}: {error}".splitlines()[0]
        _end_if_orphaned()
        trace = "".join(traceback.format_exception(error))
        self._say("failed", spec, message=record_failure(self.study, spec, message, trace))

    def _say(self, kind: str, spec: RunSpec, step: int = 0, message: str = "") -> None:
        try:
            self.pipe.send((kind, spec.identity, step, message))
        except OSError:
            os._exit(1)  # the parent is gone


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
