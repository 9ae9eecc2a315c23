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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from capacity.spec.run import RunSpec
from capacity.studies.device import device
from capacity.studies.live import Follower, RunningRun, weight
from capacity.studies.workers import Event
from capacity_reports.blocks import duration

_LINE_SECONDS = 10.0  # between lines where there is no terminal


def words(run: RunningRun) -> str:
    """Returns the phase of a run, its reward or loss, and its pace."""
    measure = "" if run.loss is None else f"loss {run.loss:.3g}" if run.reward is None else f"reward {run.reward:.2f}"
    pace = "" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f} tokens/s"
    return " · ".join(part for part in (run.phase, measure, pace) if part)


class RunProgress:
    """An observer of runs that are made: a context that gives what takes their events. Writes to stderr only."""

    def __init__(self, specs: Sequence[RunSpec], what: str) -> None:
        self.several_models = len({spec.model for spec in specs}) > 1
        self.follower = Follower(specs, what, device())
        console = Console(stderr=True)
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.overall = self.bars.add_task(f"{what} on {self.follower.device}", total=self.follower.total, said="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Callable[[Event], None]:
        self.bars.start()
        return self.on_event

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bars.stop()

    def on_event(self, event: Event) -> None:
        """Updates bars, or prints a line when a run ends."""
        key = event.spec.identity
        self.follower.hear(event)
        if event.kind == "start":
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(self._label(event.spec), total=weight(event.spec), said="")
        elif event.kind == "step":
            said = words(self.follower.running[key].shown)
            self.bars.update(self.tasks[key], completed=event.step, said=said)
        elif event.kind in ("waiting", "note"):
            self._print(f"{self._label(event.spec)}: {event.message}")
        else:
            self.bars.remove_task(self.tasks.pop(key))
            self._print_end(event)
        self.bars.update(self.overall, completed=self.follower.made, said=self._left())

    def _label(self, spec: RunSpec) -> str:
        return f"{spec.model} {spec.label}" if self.several_models else spec.label

    def _left(self) -> str:
        left = self.follower.seconds_left
        return "" if left is None else f"about {duration(left)} left"

    def _print_end(self, event: Event) -> None:
        line = f"[{self.follower.ended}/{len(self.follower.specs)}] {self._label(event.spec)}: {event.kind}"
        if event.accuracy is not None:
            line += f", accuracy {100 * event.accuracy:.1f} %"
        if event.message:
            line += f": {event.message}"
        if self.follower.ended < len(self.follower.specs) and self._left():
            line += f" ({self._left()})"
        self._print(line)

    def _print(self, line: str) -> None:
        if self.live:
            self.bars.stop()  # a thread draws the bars, and between line and bars it would wipe the line out
            self.bars.console.print(line, highlight=False)
            self.bars.start()
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
