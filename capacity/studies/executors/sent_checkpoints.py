"""Checkpoints of a worker on a node, each of which is told of as soon as it is written, so that it can be sent."""

from collections.abc import Callable, Sequence
from pathlib import Path

from capacity.spec.run import RunSpec
from capacity.training.checkpoints import Checkpoints, Timed
from capacity.training.loop import Trainee


class SentCheckpoints(Checkpoints):
    """Keeps checkpoints in a folder of the node, and tells of each.

    Args:
        study, environment, minutes, say: as of `Checkpoints`.
        saved: a function that is called after each writing of a run's checkpoint.
    """

    def __init__(
        self,
        study: Path,
        environment: str,
        minutes: float,
        say: Callable[[RunSpec, str], None],
        saved: Callable[[RunSpec], None],
    ) -> None:
        super().__init__(study, environment, minutes, say)
        self.saved = saved

    def _save(self, pairs: Sequence[tuple[Timed, Trainee]]) -> None:
        super()._save(pairs)
        for run, _ in pairs:
            self.saved(run.spec)
