"""Makes runs in local worker processes: one torch thread each, restarted when killed, gone when the parent is."""

import signal
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, resource_tracker
from pathlib import Path
from typing import Any, Literal

from capacity.errors import CapacityError, DataWarning
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.finished import record_failure
from capacity.studies.worker import work

_ATTEMPTS = 2  # a worker that dies (out of memory, killed) takes its run with it; it is tried once more


@dataclass(frozen=True)
class Event:
    """Something happened to a run: it started, made a step (`step` of its steps), ended or failed (`message`).

    It may also wait, finished, for room on a disk (`message`).
    """

    kind: Literal["start", "step", "waiting", "done", "failed"]
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

    Raises:
        CapacityError: before the first run, if a model cannot be asked the prompts of its runs.
    """
    waiting: deque[Sequence[RunSpec]] = deque(together or [(spec,) for spec in specs])
    attempts: Counter[str] = Counter()
    failed = 0
    pool: list[_Worker] = []
    resource_tracker.ensure_running()  # or its start would unblock Ctrl-C for the first worker
    try:
        for _ in range(min(workers, len(waiting))):
            with _interrupts_held():
                pool.append(_start(study.folder, fingerprint))
        if pool:
            _check(pool[0], specs)
        while waiting or any(w.running for w in pool):
            for spec in _handed_out(pool, waiting):
                on_event(Event("start", spec))
            for index, worker in _ready(pool):
                event = _receive(worker)
                if event is not None:
                    if event.kind in ("done", "failed"):
                        del worker.running[event.spec.identity]
                        failed += event.kind == "failed"
                    on_event(event)
                    continue
                with _interrupts_held():
                    pool[index] = _start(study.folder, fingerprint)
                for ended in _after_death(study, worker, attempts):
                    if ended.kind == "start":
                        waiting.appendleft((ended.spec,))  # alone, lest it take others with it again
                        continue
                    failed += ended.kind == "failed"
                    on_event(ended)
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
    return failed


def _handed_out(pool: Sequence[_Worker], waiting: deque[Sequence[RunSpec]]) -> Iterator[RunSpec]:
    """Hands jobs to the workers that have none, and yields their runs."""
    for worker in pool:
        if not worker.running and waiting and _send(worker, waiting[0]):
            worker.running = {spec.identity: spec for spec in waiting.popleft()}
            yield from worker.running.values()


def _after_death(study: Study, worker: _Worker, attempts: "Counter[str]") -> Iterator[Event]:
    """Tells of each run of a dead worker whether it is done, has failed, or is to start again."""
    code = worker.process.exitcode
    for spec in worker.running.values():
        attempts[spec.identity] += 1
        if study.path_of(spec).is_dir():  # it died between finishing the run and saying so
            yield Event("done", spec)
        elif attempts[spec.identity] < _ATTEMPTS:
            yield Event("start", spec)
        else:
            message = f"its worker process {_end(code)}, {_ATTEMPTS} times in all"
            yield Event("failed", spec, message=record_failure(study, spec, message, ""))


def _check(worker: _Worker, specs: Sequence[RunSpec]) -> None:
    """Lets a worker check the prompts of all runs. It has a tokenizer and torch, which this process never imports.

    What the check warns of is said in this process, once.

    Raises:
        CapacityError: what the check says, or that the worker has died.
    """
    error: CapacityError | None
    said: list[str] = []
    try:
        worker.pipe.send(("check", _dumped(specs)))
        error, said = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        error = CapacityError(f"the process that checks the prompts {_end(worker.process.exitcode)}")
    for text in said:
        warnings.warn(text, DataWarning, stacklevel=3)
    if error is not None:
        raise error


def _dumped(specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    return [spec.model_dump(mode="json") for spec in specs]


def _end(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _start(folder: Path, fingerprint: Fingerprint) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, str(folder), fingerprint.model_dump_json()), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C comes after the block; a process that is started in it never hears of one, because that is inherited."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    came: list[int] = []
    # Another thread may take the signal, which blocking it here does not prevent.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _send(worker: _Worker, job: Sequence[RunSpec]) -> bool:
    """Hands a job to a worker; False if the worker is dead, which `_ready` will tell."""
    try:
        worker.pipe.send(("make", _dumped(job)))
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
