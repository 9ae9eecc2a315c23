"""Makes runs in local worker processes: one torch thread each, restarted when killed, gone when the parent is."""

import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
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
    process: Any
    pipe: Any
    spec: RunSpec | None = None


def run_all(
    study: Study,
    specs: Sequence[RunSpec],
    fingerprint: Fingerprint,
    workers: int,
    on_event: Callable[[Event], None],
) -> int:
    """Makes all `specs` and adds them to `study`, whose lock the caller holds. Order does not change any result.

    Returns:
        How many failed; their diagnosis is in the study.
    """
    waiting = deque(specs)
    attempts: dict[str, int] = {}
    failed = 0
    pool: list[_Worker] = []
    resource_tracker.ensure_running()  # or its start would unblock Ctrl-C for the first worker
    try:
        for _ in range(min(workers, len(specs))):
            with _interrupts_held():
                pool.append(_start(study.folder, fingerprint))
        while waiting or any(w.spec for w in pool):
            for worker in pool:
                if worker.spec is None and waiting and _send(worker, waiting[0]):
                    worker.spec = waiting.popleft()
                    on_event(Event("start", worker.spec))
            for index, worker in _ready(pool):
                event = _receive(worker)
                if event is None:
                    with _interrupts_held():
                        pool[index] = _start(study.folder, fingerprint)
                    event = _end_of(worker, study, attempts)
                if event is None:
                    if worker.spec is not None:
                        waiting.appendleft(worker.spec)
                    continue
                if event.kind in ("done", "failed"):
                    pool[index].spec = None
                    failed += event.kind == "failed"
                on_event(event)
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
    return failed


def _end_of(worker: _Worker, study: Study, attempts: dict[str, int]) -> Event | None:
    """What the death of a worker means for its run, and counts the attempt; None if the run is to be tried again."""
    spec = worker.spec
    if spec is None:
        return None
    if study.path_of(spec).is_dir():  # it died between finishing the run and saying so
        return Event("done", spec)
    attempts[spec.identity] = attempts.get(spec.identity, 0) + 1
    if attempts[spec.identity] < _ATTEMPTS:
        return None
    code = worker.process.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    message = f"its worker process {how}, {_ATTEMPTS} times in all"
    study.add_failure(spec, message, "")
    return Event("failed", spec, message=message)


def _start(folder: Path, fingerprint: Fingerprint) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, str(folder), fingerprint.model_dump_json(), os.getpid()), daemon=True
    )
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


def _send(worker: _Worker, spec: RunSpec) -> bool:
    """Hands a run to a worker; False if the worker is dead, which `_ready` will tell."""
    try:
        worker.pipe.send(spec.model_dump(mode="json"))
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
        kind, step, message = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return None
    assert worker.spec is not None
    return Event(kind, worker.spec, step, message)


def _work(pipe: Any, folder: str, fingerprint_json: str, parent: int) -> None:
    """The life of a worker: takes specs from the pipe, adds runs to the study, tells what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, args=(parent,), daemon=True).start()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    keep_one_gpu()
    import torch

    from capacity.studies.quiet import quiet

    quiet()
    from capacity.training.run import execute

    def say(kind: str, step: int = 0, message: str = "") -> None:
        try:
            pipe.send((kind, step, message))
        except OSError:
            os._exit(1)  # the parent is gone

    torch.set_num_threads(1)
    fingerprint = Fingerprint.model_validate_json(fingerprint_json)
    study = Study(Path(folder))
    while True:
        try:
            spec = RunSpec.model_validate(pipe.recv())
        except EOFError:
            return
        try:
            record = execute(spec, fingerprint.device, lambda step: say("step", step.step + 1))
            _end_if_orphaned(parent)
            study.add(spec, fingerprint, record.result, record.steps, record.outcomes, record.artifact)
        except Exception as error:
            expected = isinstance(error, CapacityError)
            message = str(error) if expected else f"{type(error).__name__}: {error}".splitlines()[0]
            _end_if_orphaned(parent)
            study.add_failure(spec, message, traceback.format_exc())
            say("failed", message=message)
        else:
            say("done")


def _end_if_orphaned(parent: int) -> None:
    """Nothing is written after the parent died: the study may be another process's by now."""
    if os.getppid() != parent:
        os._exit(1)


def _follow_parent(parent: int) -> None:
    """Ends this process soon after its parent died, even by a signal that nobody can catch."""
    while True:
        _end_if_orphaned(parent)
        time.sleep(0.2)
