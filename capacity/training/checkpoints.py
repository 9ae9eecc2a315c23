"""Writes checkpoints of the runs of a worker while they train, and lets runs continue from those that are there."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from capacity.errors import TERMINATED, DataError
from capacity.runs import study_folder
from capacity.spec.run import RunSpec
from capacity.training.base import Base
from capacity.training.checkpoint import Checkpoint, Origin, read_checkpoint, write_checkpoint
from capacity.training.loop import AfterStep, Trainee

# Makes the context in which some runs train. It gives what is called after each step.
Keep = Callable[[Sequence[Trainee]], AbstractContextManager[AfterStep]]


class Timed(Protocol):
    """A run that is being made.

    Attributes:
        spec: its spec.
        base: the model that it starts from.
        began: when it began, by the monotonic clock. A run that continues has begun earlier by what it had taken.
    """

    spec: RunSpec
    base: Base
    began: float


@contextmanager
def unkept(trainees: Sequence[Trainee]) -> Iterator[AfterStep]:  # noqa: ARG001
    """Lets runs train without checkpoints."""
    yield lambda: None


class Checkpoints:
    """Keeps the checkpoints of one study, for the runs of one worker.

    Attributes:
        training: True while runs train. A process that is asked to end then makes the present step first.
        asked: True once the process was asked to end. Training ends after the next step, with a checkpoint.

    Args:
        study: the study folder.
        environment: the digest of the fingerprint of the present environment.
        minutes: the time between two checkpoints of a run.
        say: a function that is told in a sentence what becomes of a run's checkpoint.
    """

    def __init__(self, study: Path, environment: str, minutes: float, say: Callable[[RunSpec, str], None]) -> None:
        self.study, self.environment, self.minutes, self.say = study, environment, minutes, say
        self.training = self.asked = False
        self._unwritable: set[str] = set()

    @contextmanager
    def keeping(self, runs: Sequence[Timed], trainees: Sequence[Trainee]) -> Iterator[AfterStep]:
        """Lets runs continue where their checkpoints are, and keeps new ones while the context lasts.

        A run that has been trained long enough for a checkpoint gets a last one at the end of its training. The
        evaluation that follows may take long too.

        Args:
            runs: the runs.
            trainees: the same runs in training, at their start.

        Raises:
            SystemExit: if the process was asked to end.
        """
        pairs = list(zip(runs, trainees, strict=True))
        resumed = [self._resume(run, trainee) for run, trainee in pairs]
        long, last = any(resumed), time.monotonic()

        def after_step() -> None:
            nonlocal long, last
            if self.asked or time.monotonic() - last >= 60 * self.minutes:
                self._save(pairs)
                long, last = True, time.monotonic()
            if self.asked:
                raise SystemExit(TERMINATED)

        self.training = True
        try:
            yield after_step
            if long:
                self._save(pairs)
        finally:
            self.training = False
        if self.asked:
            raise SystemExit(TERMINATED)

    def discard(self, spec: RunSpec) -> None:
        """Removes the checkpoint of a finished run."""
        study_folder.discard_checkpoint(self.study, spec.short_id)

    def _resume(self, run: Timed, trainee: Trainee) -> bool:
        """Lets a run continue from its checkpoint; False if it has none, or none that it can continue from."""
        path = study_folder.checkpoint_of(self.study, run.spec.short_id)
        if not path.exists():
            return False
        try:
            found = read_checkpoint(path)
        except DataError as error:
            self.say(run.spec, f"its checkpoint cannot be used, so it starts over: {error}")
            return False
        foreign = self._foreign(found.origin, self._origin(run))
        if foreign is not None:
            self.say(run.spec, f"its checkpoint {path} is of another {foreign}, so it starts over")
            return False
        trainee.restore(found.state)
        run.began -= found.seconds
        self.say(run.spec, f"continues after step {len(found.state.position.steps)} from its checkpoint")
        return True

    def _origin(self, run: Timed) -> Origin:
        return Origin(run=run.spec.identity, environment=self.environment, base=run.base.fingerprint)

    @staticmethod
    def _foreign(found: Origin, own: Origin) -> str | None:
        """Returns what a checkpoint has of its own; None if it is the run's in every way."""
        return next((name for name in Origin.model_fields if getattr(found, name) != getattr(own, name)), None)

    def _save(self, pairs: Sequence[tuple[Timed, Trainee]]) -> None:
        """Writes a checkpoint of each run that has not failed. What cannot be written is said once a run."""
        for run, trainee in pairs:
            if trainee.error is not None:
                continue
            seconds = time.monotonic() - run.began
            path = study_folder.checkpoint_of(self.study, run.spec.short_id)
            try:
                write_checkpoint(path, Checkpoint(self._origin(run), seconds, trainee.state()))
            except DataError as error:
                if run.spec.identity not in self._unwritable:
                    self._unwritable.add(run.spec.identity)
                    self.say(run.spec, f"goes on without a checkpoint: {error}")
