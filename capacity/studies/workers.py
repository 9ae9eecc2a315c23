"""Makes runs in local worker processes: one torch thread each, restarted when killed, gone when the parent is."""

import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, Literal

from capacity.errors import CapacityError
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.device import keep_one_gpu

_ATTEMPTS = 2  # a worker that dies (out of memory, killed) takes its run with it; it is tried once more


@dataclass(frozen=True)
class Event:
    """Something happened to a run: it started, made a step (`step` of its steps), ended or failed (`message`)."""

    kind: Literal["start", "step", "done", "failed"]
    spec: RunSpec
    step: int = 0
    message: str = ""


@dataclass
class _Worker:
    """A process, and those runs of its job that it has not ended yet, by their identities."""

    process: Any
    pipe: Any
    running: dict[str, RunSpec] = field(default_factory=dict)


def run_all(
    study: Study,
    specs: Sequence[RunSpec],
    fingerprint: Fingerprint,
    workers: int,
    on_event: Callable[[Event], None],
    together: Sequence[Sequence[RunSpec]] | None = None,
) -> int:
    """Makes all `specs` and adds them to `study`, whose lock the caller holds. Order does not change any result.

    Args:
        study: where to.
        specs: the runs.
        fingerprint: of the present environment.
        workers: the number of processes.
        on_event: hears of every event.
        together: the runs dealt to jobs, whose runs share their passes; each run is a job of its own if None.

    Returns:
        How many failed; their diagnosis is in the study.
    """
    waiting: deque[Sequence[RunSpec]] = deque(together or [(spec,) for spec in specs])
    attempts: Counter[str] = Counter()
    failed = 0
    pool = [_start(study.folder, fingerprint) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(w.running for w in pool):
            for worker in pool:
                if not worker.running and waiting and _send(worker, waiting[0]):
                    worker.running = {spec.identity: spec for spec in waiting.popleft()}
                    for spec in worker.running.values():
                        on_event(Event("start", spec))
            for index, worker in _ready(pool):
                event = _receive(worker)
                if event is not None:
                    if event.kind in ("done", "failed"):
                        del worker.running[event.spec.identity]
                        failed += event.kind == "failed"
                    on_event(event)
                    continue
                pool[index] = _start(study.folder, fingerprint)
                for spec in worker.running.values():
                    if study.path_of(spec).is_dir():  # it died between finishing the run and saying so
                        on_event(Event("done", spec))
                        continue
                    attempts[spec.identity] += 1
                    if attempts[spec.identity] < _ATTEMPTS:
                        waiting.appendleft((spec,))  # alone, lest it take others with it again
                        continue
                    code = worker.process.exitcode
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                    message = f"its worker process {how}, {_ATTEMPTS} times in all"
                    study.add_failure(spec, message, "")
                    failed += 1
                    on_event(Event("failed", spec, message=message))
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
    return failed


def _start(folder: Path, fingerprint: Fingerprint) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, str(folder), fingerprint.model_dump_json(), os.getpid()), daemon=True
    )
    with _interrupts_ignored():  # inherited: Ctrl-C is the parent's to handle, even while a worker is starting
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _send(worker: _Worker, job: Sequence[RunSpec]) -> bool:
    """Hands a job to a worker; False if the worker is dead, which `_ready` will tell."""
    try:
        worker.pipe.send([spec.model_dump(mode="json") for spec in job])
    except OSError:
        return False
    return True


def _ready(pool: Sequence[_Worker]) -> list[tuple[int, _Worker]]:
    """Workers that said something, or died."""
    waitable: list[Any] = [w.pipe for w in pool] + [w.process.sentinel for w in pool]
    found = connection.wait(waitable, timeout=1.0)
    return [(i, w) for i, w in enumerate(pool) if w.pipe in found or w.process.sentinel in found]


def _receive(worker: _Worker) -> Event | None:
    """The worker's next event; None if it is dead and has nothing left to say."""
    try:
        kind, run, step, message = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return None
    return Event(kind, worker.running[run], step, message)


def _work(pipe: Any, folder: str, fingerprint_json: str, parent: int) -> None:
    """The life of a worker: takes specs from the pipe, adds runs to the study, tells what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, args=(parent,), daemon=True).start()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    keep_one_gpu()
    import torch

    from capacity.studies.quiet import quiet

    quiet()
    from capacity.training.base import Bases
    from capacity.training.run import RunRecord, execute, execute_together

    def say(kind: str, spec: RunSpec, step: int = 0, message: str = "") -> None:
        try:
            pipe.send((kind, spec.identity, step, message))
        except OSError:
            os._exit(1)  # the parent is gone

    def add(spec: RunSpec, record: RunRecord) -> None:
        _end_if_orphaned(parent)
        study.add(spec, fingerprint, record.result, record.steps, record.outcomes, record.artifact)
        say("done", spec)

    def fail(spec: RunSpec, error: Exception) -> None:
        message = str(error) if isinstance(error, CapacityError) else f"{type(error).__name__}: {error}".splitlines()[0]
        _end_if_orphaned(parent)
        study.add_failure(spec, message, "".join(traceback.format_exception(error)))
        say("failed", spec, message=message)

    torch.set_num_threads(1)
    fingerprint = Fingerprint.model_validate_json(fingerprint_json)
    study, bases = Study(Path(folder)), Bases(fingerprint.device)
    while True:
        try:
            job = [RunSpec.model_validate(raw) for raw in pipe.recv()]
        except EOFError:
            return
        open_runs = list(job)
        try:
            if len(job) == 1:
                on_step = lambda step: say("step", job[0], step.step + 1)  # noqa: E731
                found = [execute(job[0], fingerprint.device, on_step, bases=bases, trainer=fingerprint.trainer)]
            else:
                found = execute_together(job, lambda spec, step: say("step", spec, step.step + 1), bases)
            for spec, record in zip(job, found, strict=True):
                open_runs.remove(spec)
                if isinstance(record, RunRecord):
                    add(spec, record)
                else:
                    fail(spec, record)
        except Exception as error:
            for spec in open_runs:
                fail(spec, error)


def _end_if_orphaned(parent: int) -> None:
    """Nothing is written after the parent died: the study may be another process's by now."""
    if os.getppid() != parent:
        os._exit(1)


def _follow_parent(parent: int) -> None:
    """Ends this process soon after its parent died, even by a signal that nobody can catch."""
    while True:
        _end_if_orphaned(parent)
        time.sleep(0.2)
