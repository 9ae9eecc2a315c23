"""Live progress of runs: bars on a terminal, a line for each run that ends elsewhere."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from capacity.spec.run import RunSpec
from capacity.studies.workers import Event
from capacity_reports.blocks import duration

_LINE_SECONDS = 10.0  # between lines where there is no terminal
_BASE_STEPS = 4  # an untrained run takes about as long as this many training steps


def weight(spec: RunSpec) -> int:
    """Steps of a run, for shares of progress."""
    return (spec.training.steps if spec.training else 0) + _BASE_STEPS


class RunProgress:
    """An observer of runs that are made: a context that gives what takes their events. Writes to stderr only."""

    def __init__(self, specs: Sequence[RunSpec], what: str) -> None:
        self.several_models = len({spec.model for spec in specs}) > 1
        self.total = sum(map(weight, specs))
        self.count = len(specs)
        self.ended = 0
        self.steps: dict[str, int] = {}
        self.began = time.monotonic()
        console = Console(stderr=True)
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.overall = self.bars.add_task(what, total=self.total)
        self.tasks: dict[str, int] = {}

    def __enter__(self) -> Callable[[Event], None]:
        self.bars.start()
        return self.on_event

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bars.stop()

    def on_event(self, event: Event) -> None:
        """Updates bars, or prints a line when a run ends."""
        key = event.spec.identity
        if event.kind == "start":
            self.steps[key] = 0
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(self._label(event.spec), total=weight(event.spec))
        elif event.kind == "step":
            self.steps[key] = event.step
            self.bars.update(self.tasks[key], completed=event.step)  # type: ignore[arg-type]
        elif event.kind == "waiting":
            self._print(f"{self._label(event.spec)}: {event.message}")
        else:
            self.ended += 1
            self.steps[key] = weight(event.spec)
            self.bars.remove_task(self.tasks.pop(key))  # type: ignore[arg-type]
            self._print_end(event)
        self.bars.update(self.overall, completed=sum(self.steps.values()))

    def _label(self, spec: RunSpec) -> str:
        return f"{spec.model} {spec.label}" if self.several_models else spec.label

    def _print_end(self, event: Event) -> None:
        done = sum(self.steps.values())
        elapsed = time.monotonic() - self.began
        left = duration(elapsed * (self.total - done) / max(done, 1))
        line = f"[{self.ended}/{self.count}] {self._label(event.spec)}: {event.kind}"
        if event.message:
            line += f": {event.message}"
        if self.ended < self.count:
            line += f" (about {left} left)"
        self._print(line)

    def _print(self, line: str) -> None:
        if self.live:
            self.bars.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


class ModuleProgress:
    """Context manager with a bar for a count of like things on a terminal, a line now and then elsewhere. On stderr."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self.what = what
        self.live = console.is_terminal
        self.printed = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.bars.add_task(what, total=None)

    def __enter__(self) -> "ModuleProgress":
        self.bars.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bars.stop()

    def on_module(self, done: int, total: int, name: str) -> None:
        """One more module is done."""
        self.bars.update(self.task, description=f"{self.what} {name}")
        self.on_count(done, total)

    def on_count(self, done: int, total: int) -> None:
        """`done` of `total` are done."""
        self.bars.update(self.task, completed=done, total=total)
        now = time.monotonic()
        if not self.live and now - self.printed > _LINE_SECONDS:
            self.printed = now
            print(f"{self.what}: {done:,} of {total:,}", file=sys.stderr, flush=True)
