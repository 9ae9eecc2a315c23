"""Makes runs by workers on the nodes of a Ray cluster, and makes those of a lost node again."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from capacity.errors import CapacityError, DataError
from capacity.runs import study_folder
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.executors.checkpoint_bytes import checkpoints_of, keep_checkpoints
from capacity.studies.executors.node import NodeWorker
from capacity.studies.executors.parcel import add_parcel
from capacity.studies.finished import record_failure
from capacity.studies.workers import Event, check_there, dumped, event_of, heed

_ATTEMPTS = 4  # a run whose worker is lost is made again; after so many losses it has failed
_STARTS = 3  # workers that end before their first run, one after the other, before the study is given up
_PATIENCE = 60.0  # seconds without any worker after which a line says so


@dataclass
class _Worker:
    """A worker, what it is asked at present, and those runs of its job that it has not ended yet."""

    actor: Any
    preparing: Any  # the answer to `NodeWorker.prepare`; None once it has come
    events: Any = None  # those of its job; None without a job
    running: dict[str, RunSpec] = field(default_factory=dict)


@dataclass
class Crew:
    """Makes the runs of a study.

    Attributes:
        study: where to.
        fingerprint: the environment of the runs.
        resources: what Ray reserves for each worker, as options of an actor.
        share: the part of a GPU's memory that a worker may take.
        on_event: hears of every event.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made.
    """

    study: Study
    fingerprint: Fingerprint
    resources: dict[str, float]
    share: float
    on_event: Callable[[Event], None]
    checkpoint_minutes: float = 0
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[Sequence[RunSpec]] = field(default_factory=deque)
    _attempts: "Counter[str]" = field(default_factory=Counter)
    _unwritable: set[str] = field(default_factory=set)
    _lost_starts: int = 0

    def make(self, jobs: Sequence[Sequence[RunSpec]], workers: int) -> None:
        """Makes the runs of all jobs, by so many workers. At its end no worker is left.

        Raises:
            CapacityError: if no worker can be started, a node has another environment, or a model cannot be asked its
                prompts.
            DataError: if the study folder is lost.
        """
        self._waiting = deque(jobs)
        specs = [spec for job in jobs for spec in job]
        asked, alone_since = False, time.monotonic()
        try:
            self._workers = [self._started() for _ in range(min(workers, len(jobs)))]
            while self._waiting or any(worker.running for worker in self._workers):
                check_there(self.study)
                ready = [worker for worker in self._workers if worker.preparing is None]
                if ready and not asked:
                    self._check(ready[0], specs)
                    asked = True
                for worker in ready:
                    self._hand_out(worker)
                self._hear()
                alone_since = self._tell_if_alone(bool(ready), alone_since)
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)

    def _started(self) -> _Worker:
        actor = (
            ray.remote(NodeWorker)
            .options(**self.resources, max_restarts=0)
            .remote(self.fingerprint.model_dump_json(), self.share, self.checkpoint_minutes)
        )
        return _Worker(actor, actor.prepare.remote())

    def _check(self, worker: _Worker, specs: Sequence[RunSpec]) -> None:
        try:
            heed(*ray.get(worker.actor.check.remote(dumped(specs))))
        except RayError as error:
            raise CapacityError(f"the worker that checks the prompts was lost: {_line(error)}") from None

    def _hand_out(self, worker: _Worker) -> None:
        if worker.events is None and self._waiting:
            job = self._waiting.popleft()
            worker.running = {spec.identity: spec for spec in job}
            found = checkpoints_of(self.study, job) if self.checkpoint_minutes else {}
            worker.events = worker.actor.make.options(num_returns="streaming").remote(dumped(job), found)
            for spec in job:
                self.on_event(Event("start", spec))

    def _hear(self) -> None:
        """Waits up to a second for what workers say, and passes it on."""
        asked = {_asked(worker): place for place, worker in enumerate(self._workers) if _asked(worker) is not None}
        for reference in ray.wait(list(asked), num_returns=1, timeout=1.0)[0]:
            place = asked[reference]
            worker = self._workers[place]
            try:
                if worker.preparing is not None:
                    ray.get(worker.preparing)
                    worker.preparing, self._lost_starts = None, 0
                else:
                    self._heard(worker)
            except RayError as error:
                self._lost(worker, error)
                self._workers[place] = self._started()

    def _heard(self, worker: _Worker) -> None:
        try:
            kind, run, step, message, content = ray.get(next(worker.events))
        except StopIteration:
            worker.events = None
            for spec in worker.running.values():
                self._again(spec, "its worker ended the job without it")
            worker.running = {}
            return
        spec = worker.running[run]
        if kind == "done":
            del worker.running[run]
            self.on_event(self._added(spec, content))
        elif kind == "failed":
            del worker.running[run]
            self.on_event(Event("failed", spec, message=record_failure(self.study, spec, message, content)))
        elif kind == "checkpoint":
            self._keep(spec, content)
        else:
            self.on_event(event_of(spec, kind, step, message))

    def _keep(self, spec: RunSpec, checkpoint: bytes | None) -> None:
        """Writes a checkpoint of a run into the study. What cannot be written is said once a run."""
        if checkpoint is None:
            return
        try:
            keep_checkpoints(self.study, [spec], {spec.identity: checkpoint})
        except DataError as error:
            if spec.identity not in self._unwritable:
                self._unwritable.add(spec.identity)
                self.on_event(Event("note", spec, message=f"goes on without a checkpoint: {error}"))

    def _added(self, spec: RunSpec, parcel: Any) -> Event:
        """Adds a run to the study, and returns how it ended."""
        try:
            accuracy = add_parcel(
                self.study, spec, parcel, lambda message: self.on_event(Event("waiting", spec, message=message))
            )
        except CapacityError as error:
            return Event("failed", spec, message=record_failure(self.study, spec, str(error), ""))
        with suppress(OSError):  # the next command removes it
            study_folder.discard_checkpoint(self.study.folder, spec.short_id)
        return Event("done", spec, accuracy=accuracy)

    def _lost(self, worker: _Worker, error: RayError) -> None:
        """Puts the runs of a lost worker back in the queue.

        Raises:
            CapacityError: if it refused to start, or too many workers have been lost before their first run.
        """
        if worker.preparing is not None:
            if isinstance(error, RayTaskError):
                refused = error.cause if isinstance(error.cause, CapacityError) else _line(error)
                raise CapacityError(str(refused)) from None
            self._lost_starts += 1
            if self._lost_starts >= _STARTS:
                raise CapacityError(
                    f"{_STARTS} workers in a row were lost while they started: {_line(error)}"
                ) from None
        for spec in worker.running.values():
            self._again(spec, f"its worker was lost ({_line(error)})")

    def _again(self, spec: RunSpec, why: str) -> None:
        self._attempts[spec.identity] += 1
        if self._attempts[spec.identity] < _ATTEMPTS:
            self._waiting.append((spec,))
            self.on_event(Event("note", spec, message=f"{why}: it is made again, after the others"))
        else:
            message = record_failure(self.study, spec, f"{why}, {_ATTEMPTS} times in all", "")
            self.on_event(Event("failed", spec, message=message))

    def _tell_if_alone(self, attended: bool, since: float) -> float:
        """Says that no worker is ready, once a minute. Returns since when that is so."""
        now = time.monotonic()
        if attended or not self._waiting:
            return now
        if now - since > _PATIENCE:
            what = "waits, because no worker is ready: no node of the cluster has room for one, or its start takes long"
            self.on_event(Event("note", self._waiting[0][0], message=what))
            return now
        return since


def _asked(worker: _Worker) -> Any:
    return worker.events if worker.preparing is None else worker.preparing


def _line(error: BaseException) -> str:
    """Returns what an error of Ray says, in one line."""
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".:") for line in lines if line), type(error).__name__)
