"""What the runs of a study are doing at this moment, told by their events and kept in a file of the study. No torch.

STUDY/progress.json    while runs are made; `capacity runs STUDY --watch` shows it
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from capacity.errors import DataError
from capacity.runs import files
from capacity.spec.frozen import Frozen
from capacity.spec.run import RunSpec
from capacity.studies.workers import Event

NAME = "progress.json"
_PAUSE = 1.0  # seconds between two writings of the file
_BASE_STEPS = 4  # an untrained run takes about as long as this many training steps


class RunningRun(Frozen):
    """A run that is being made.

    Attributes:
        label: what it is.
        phase: "training", the method of a phase, or "evaluation".
        step, steps: the steps made and wanted.
        reward, loss: of its last step; the reward is None for methods without one.
        tokens_per_second: completion tokens trained on; None before the second step.
    """

    label: str
    phase: str
    step: int
    steps: int
    reward: float | None
    loss: float | None
    tokens_per_second: float | None


class Progress(Frozen):
    """How far the runs of a command are.

    Attributes:
        host, process: the command that makes them.
        device: "cpu" or "cuda".
        what: what the runs are for.
        runs, done, failed: their number, and how many have ended.
        accuracy: the mean accuracy of the finished runs of each method.
        seconds_left: about how long the rest takes; None before the second step.
        running: the runs that are being made.
    """

    host: str
    process: int
    device: str
    what: str
    runs: int
    done: int
    failed: int
    accuracy: dict[str, float]
    seconds_left: float | None
    running: tuple[RunningRun, ...]

    @property
    def alive(self) -> bool:
        """Tells whether the command still works, as far as this machine can tell."""
        if self.host != platform.node():
            return True
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def weight(spec: RunSpec) -> int:
    """Returns the steps of a run, for shares of the work."""
    return (spec.training.steps if spec.training else 0) + _BASE_STEPS


@dataclass
class _Running:
    """A run that is being made, with the time and the tokens of its steps since the first one that was heard of."""

    spec: RunSpec
    step: int = 0
    phase: str = ""
    reward: float | None = None
    loss: float | None = None
    tokens: int = 0
    first: float | None = None
    last: float = 0.0

    def hear(self, event: Event, now: float) -> None:
        self.step, metrics = event.step, event.metrics
        if metrics is None:
            return
        self.phase, self.reward, self.loss = metrics.phase or "training", metrics.reward, metrics.loss
        if self.first is None:
            self.first = now
        else:
            self.tokens += metrics.trained_tokens or 0
        self.last = now

    @property
    def shown(self) -> RunningRun:
        steps = self.spec.training.steps if self.spec.training else 0
        measured = self.first is not None and self.last > self.first
        return RunningRun(
            label=self.spec.label,
            phase="evaluation" if self.step >= steps else self.phase or "start",
            step=self.step,
            steps=steps,
            reward=self.reward,
            loss=self.loss,
            tokens_per_second=self.tokens / (self.last - (self.first or 0.0)) if measured else None,
        )


@dataclass
class Follower:
    """Hears of the events of runs, and tells how far they are.

    The time that is left follows from the pace since the first step. The start of workers, which makes no steps, does
    not count. So the time settles after a few steps.

    Args:
        specs: the runs.
        what: what they are for.
        device: "cpu" or "cuda".
        clock: gives the time in seconds; it never goes back.
    """

    specs: Sequence[RunSpec]
    what: str
    device: str
    clock: Callable[[], float] = time.monotonic
    running: dict[str, _Running] = field(default_factory=dict)
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    ended: int = 0
    failed: int = 0
    _finished: int = 0
    _first: tuple[float, int] | None = None

    def hear(self, event: Event) -> None:
        """Takes an event."""
        key = event.spec.identity
        if event.kind == "start":
            self.running[key] = _Running(event.spec)
        elif event.kind == "step":
            self.running[key].hear(event, self.clock())
            if self._first is None:
                self._first = (self.clock(), self.made)
        elif event.kind in ("done", "failed"):
            self.running.pop(key, None)
            self.ended += 1
            self.failed += event.kind == "failed"
            self._finished += weight(event.spec)
            if event.accuracy is not None:
                self.accuracies.setdefault(event.spec.method, []).append(event.accuracy)

    @property
    def total(self) -> int:
        """Returns the steps of all runs."""
        return sum(map(weight, self.specs))

    @property
    def made(self) -> int:
        """Returns the steps that have been made."""
        return self._finished + sum(run.step for run in self.running.values())

    @property
    def seconds_left(self) -> float | None:
        """Returns about how long the rest takes, in seconds; None if there is no pace yet."""
        if self._first is None:
            return None
        began, before = self._first
        if self.made <= before:
            return None
        return (self.clock() - began) * (self.total - self.made) / (self.made - before)

    def progress(self) -> Progress:
        """Returns how far the runs are now."""
        return Progress(
            host=platform.node(),
            process=os.getpid(),
            device=self.device,
            what=self.what,
            runs=len(self.specs),
            done=self.ended,
            failed=self.failed,
            accuracy={method: sum(found) / len(found) for method, found in self.accuracies.items()},
            seconds_left=self.seconds_left,
            running=tuple(run.shown for run in self.running.values()),
        )


@contextmanager
def followed(study: Path, specs: Sequence[RunSpec], what: str, device: str) -> Iterator[Callable[[Event], None]]:
    """Keeps the progress of runs in a file of their study while they are made. Gives what hears of their events."""
    follower, path, written = Follower(specs, what, device), study / NAME, -_PAUSE

    def hear(event: Event) -> None:
        nonlocal written
        follower.hear(event)
        now = time.monotonic()
        if now - written >= _PAUSE:
            written = now
            with suppress(DataError):  # a full disk must not end runs for want of a view of them
                files.write_atomically(path, follower.progress().model_dump_json(indent=1) + "\n")

    try:
        yield hear
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read_progress(study: Path) -> Progress | None:
    """Returns how far the runs of a study are; None if no command makes any.

    Raises:
        DataError: if the file is unreadable.
    """
    path = study / NAME
    if not path.exists():
        return None
    try:
        found = files.read_record(path, Progress)
    except DataError:
        if not path.exists():  # the command has ended in this moment
            return None
        raise
    return found if found.alive else None
