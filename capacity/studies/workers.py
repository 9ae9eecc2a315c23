"""Makes runs in local worker processes: one torch thread each, restarted when killed, gone when the parent is."""

import signal
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, resource_tracker
from pathlib import Path
from typing import Any, Literal

from capacity.errors import CapacityError, DataError, DataWarning
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies.finished import record_failure
from capacity.studies.worker import work

_ATTEMPTS = 2  # a worker that dies (out of memory, killed) takes its run with it; it is tried once more
_PATIENCE = 15.0  # seconds for runs in training to end their step and leave a checkpoint


@dataclass(frozen=True)
class Event:
    """Something happened to a run: it started, made a step (`step` of its steps), ended or failed (`message`).

    `metrics` are those of the step, and `accuracy` is that of a run that is done.
    It may also wait, finished, for room on a disk (`message`), or there is something to know of it (`message`).
    """

    kind: Literal["start", "step", "waiting", "note", "done", "failed"]
    spec: RunSpec
    step: int = 0
    message: str = ""
    metrics: Step | None = None
    accuracy: float | None = None


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
    checkpoint_minutes: float = 0,
    gpus: Sequence[str] = (),
) -> int:
    """Makes all `specs` and adds them to `study`, whose lock the caller holds. Order does not change any result.

    If an exception ends the work, such as Ctrl-C, runs in training leave a checkpoint.

    Args:
        study: where to.
        specs: the runs.
        fingerprint: of the present environment.
        workers: the number of processes.
        on_event: hears of every event.
        together: the runs dealt to jobs, whose runs share their passes; each run is a job of its own if None.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made.
        gpus: the GPUs that processes are dealt to, as CUDA_VISIBLE_DEVICES names them. Each process sees one of them.

    Returns:
        How many failed; their diagnosis is in the study.

    Raises:
        CapacityError: before the first run, if a model cannot be asked the prompts of its runs.
    """
    waiting: deque[Sequence[RunSpec]] = deque(together or [(spec,) for spec in specs])
    again: deque[RunSpec] = deque()
    attempts: Counter[str] = Counter()
    failed = 0
    resource_tracker.ensure_running()  # or its start would unblock Ctrl-C for the first worker
    with _pool(patient=checkpoint_minutes > 0) as pool:
        count = min(workers, len(waiting))
        for place in range(count):
            with _interrupts_held():
                pool.append(_start(study.folder, fingerprint, checkpoint_minutes, *_gpu(place, count, gpus)))
        if pool:
            _check(pool[0], specs)
        while waiting or again or any(w.running for w in pool):
            check_there(study)
            for spec in _handed_out(pool, waiting, again):
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
                    pool[index] = _start(study.folder, fingerprint, checkpoint_minutes, *_gpu(index, count, gpus))
                for ended in _after_death(study, worker, attempts):
                    if ended.kind == "note":
                        again.append(ended.spec)
                    failed += ended.kind == "failed"
                    on_event(ended)
    return failed


def prompt_obstacles(study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint) -> list[str]:
    """Lets a worker check the prompts of runs. Returns what stands in their way, a line each."""
    if not specs:
        return []
    with _pool(patient=False) as pool:
        with _interrupts_held():
            pool.append(_start(study.folder, fingerprint, 0))
        try:
            _check(pool[0], specs)
        except CapacityError as error:
            return str(error).splitlines()
    return []


@contextmanager
def _pool(*, patient: bool) -> Iterator[list[_Worker]]:
    """Gives an empty list of workers, and ends those in it at the end.

    Args:
        patient: True if runs in training leave checkpoints when an exception ends the work.
    """
    pool: list[_Worker] = []
    try:
        yield pool
    except BaseException:
        if patient:
            _ask_to_end(pool)
        raise
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()


def _ask_to_end(pool: Sequence[_Worker]) -> None:
    """Lets workers end by themselves, so that their runs leave checkpoints. It waits for them, but not for long."""
    for worker in pool:
        worker.process.terminate()
    until = time.monotonic() + _PATIENCE
    for worker in pool:
        worker.process.join(max(0.0, until - time.monotonic()))


def check_there(study: Study) -> None:
    """Ends the work on a study whose folder somebody has removed or locked.

    Raises:
        DataError: if it is not there any more, or cannot be read.
    """
    try:
        study.check_there()
    except PermissionError as error:
        raise DataError(
            f"study folder {study.folder} cannot be read any more ({error.strerror}): make it readable, and the same "
            "command continues with the runs that could be kept in the cache"
        ) from None
    except OSError as error:
        raise DataError(
            f"study folder {study.folder} was lost while its runs were made ({error.strerror}): "
            "the same command makes it again, with the runs that could be kept in the cache"
        ) from None


def _handed_out(pool: Sequence[_Worker], waiting: deque[Sequence[RunSpec]], again: deque[RunSpec]) -> Iterator[RunSpec]:
    """Hands jobs to the workers that have none, and yields their runs.

    Runs whose worker died come last, one at a time, so that each has all memory of the machine.
    """
    for worker in pool:
        if not worker.running and waiting and _send(worker, waiting[0]):
            worker.running = {spec.identity: spec for spec in waiting.popleft()}
            yield from worker.running.values()
    if again and not waiting and not any(worker.running for worker in pool):
        ready = next((worker for worker in pool if _send(worker, (again[0],))), None)
        if ready is not None:
            ready.running = {again[0].identity: again[0]}
            yield again.popleft()


def _after_death(study: Study, worker: _Worker, attempts: "Counter[str]") -> Iterator[Event]:
    """Tells of each run of a dead worker whether it is done, has failed, or is made again (`note`)."""
    code = worker.process.exitcode
    for spec in worker.running.values():
        attempts[spec.identity] += 1
        if study.path_of(spec).is_dir():  # it died between finishing the run and saying so
            yield Event("done", spec)
        elif attempts[spec.identity] < _ATTEMPTS:
            why = f"its worker process {_end(code)}: it is made once more, after the others and alone"
            yield Event("note", spec, message=why)
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
        worker.pipe.send(("check", dumped(specs)))
        error, said = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        error = CapacityError(f"the process that checks the prompts {_end(worker.process.exitcode)}")
    heed(error, said)


def heed(error: CapacityError | None, said: Sequence[str]) -> None:
    """Warns of what a check of prompts said, and raises its error if there is one.

    Raises:
        CapacityError: the error.
    """
    for text in said:
        warnings.warn(text, DataWarning, stacklevel=3)
    if error is not None:
        raise error


def dumped(specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """Returns specs as plain JSON types, in the form that workers take them."""
    return [spec.model_dump(mode="json") for spec in specs]


def _end(code: int) -> str:
    """How a process ended, in words."""
    if code == -signal.SIGKILL:
        return "was killed by signal 9, as it happens when memory runs out"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _gpu(place: int, workers: int, gpus: Sequence[str]) -> tuple[str | None, float]:
    """Returns the GPU of a process, and the share of its memory: that of the GPU with the most processes."""
    return (gpus[place % len(gpus)], 1 / -(-workers // len(gpus))) if gpus else (None, 1.0)


def _start(
    folder: Path, fingerprint: Fingerprint, checkpoint_minutes: float, gpu: str | None = None, share: float = 1.0
) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=work,
        args=(theirs, str(folder), fingerprint.model_dump_json(), checkpoint_minutes, gpu, share),
        daemon=True,
    )
    process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM come after the block.

    A process that is started in it never hears of Ctrl-C, because that is inherited.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    came: list[int] = []
    # Another thread may take the signal, which blocking it here does not prevent.
    handlers = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _send(worker: _Worker, job: Sequence[RunSpec]) -> bool:
    """Hands a job to a worker; False if the worker is dead, which `_ready` will tell."""
    try:
        worker.pipe.send(("make", dumped(job)))
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
    return event_of(worker.running[run], kind, step, message)


def event_of(spec: RunSpec, kind: Any, step: int, message: str) -> Event:
    """Returns the event that a worker tells of; see `capacity.studies.worker.work`."""
    if kind == "step":
        return Event(kind, spec, step, metrics=Step.model_validate_json(message))
    if kind == "done":
        return Event(kind, spec, accuracy=float(message))
    return Event(kind, spec, step, message)
