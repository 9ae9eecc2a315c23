"""What a study asks of an executor."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from capacity.plan.executors import ExecutorChoice
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.preflight import Room
from capacity.studies.workers import Event

Job = Sequence[RunSpec]  # runs that one worker makes in common passes


class Executor(Protocol):
    """Makes runs by several workers, and adds them to a study of this machine."""

    @property
    def workers(self) -> int:
        """The number of jobs that are made at once."""
        ...

    @property
    def device(self) -> str:
        """The kind of device of every worker, "cpu" or "cuda"."""
        ...

    @property
    def gpu_bytes(self) -> int | None:
        """The memory of a GPU that one worker may take, in bytes; None on CPUs."""
        ...

    def room(self) -> Room:
        """Returns the memory that runs may take."""
        ...

    def run(
        self,
        study: Study,
        jobs: Sequence[Job],
        fingerprint: Fingerprint,
        on_event: Callable[[Event], None],
        checkpoint_minutes: float,
    ) -> None:
        """Makes the runs of all jobs and adds them to `study`, whose lock the caller holds.

        Args:
            study: where to.
            jobs: the runs, dealt to jobs.
            fingerprint: the environment that the runs are made in.
            on_event: hears of every event.
            checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made.

        Raises:
            CapacityError: if a model cannot be asked the prompts of its runs, or the study or the workers are lost.
        """
        ...


@contextmanager
def opened(choice: ExecutorChoice | None = None, workers: int | None = None) -> Iterator[Executor]:
    """Gives the executor of a choice, and ends what belongs to it after the block.

    Args:
        choice: what makes the runs; local workers if None.
        workers: the number of workers. If None: see `local_executor` and `capacity.studies.executors.ray_cluster`.

    Raises:
        SpecError: if a GPU is named that is not there.
        CapacityError: if Ray is not there, is of another version, or has no such cluster.
    """
    from capacity.studies.executors.local import local_executor

    choice = choice or ExecutorChoice()
    if choice.name == "local":
        yield local_executor(workers, choice.devices)
        return
    from capacity.studies.executors.ray_cluster import ray_executor

    with ray_executor(choice.address, workers) as executor:
        yield executor
