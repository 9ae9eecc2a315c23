"""Makes runs in worker processes on this machine: one a core on CPUs, one a GPU where there are GPUs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.errors import SpecError
from capacity.plan.machine import memory_bytes
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies import workers as processes
from capacity.studies.device import device, gpus
from capacity.studies.preflight import Room
from capacity.studies.workers import Event

_MOST_BY_DEFAULT = 4  # workers on a CPU


@dataclass(frozen=True)
class Local:
    """Workers on this machine.

    Attributes:
        workers: the number of processes. Several share a GPU if there are more than GPUs.
        gpus: the GPUs that they are dealt to, as CUDA_VISIBLE_DEVICES names them; empty on a CPU.
        numbers: the same GPUs, by their numbers in this process.
    """

    workers: int
    gpus: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def device(self) -> str:
        """The kind of device of every worker, "cpu" or "cuda"."""
        return device()

    @property
    def each(self) -> int:
        """The largest number of workers on one GPU."""
        return -(-self.workers // len(self.gpus)) if self.gpus else 1

    @property
    def gpu_bytes(self) -> int | None:
        """The memory that one worker may take of the smallest GPU, in bytes; None on a CPU."""
        if self.device == "cpu":
            return None
        from capacity.models.device_memory import total_memory

        return min(total_memory(f"cuda:{number}") for number in self.numbers) // self.each

    def room(self) -> Room:
        """Returns the memory that runs may take: of the machine, or what is free of the fullest GPU."""
        if self.device == "cpu":
            return Room(memory_bytes(), self.workers, "this machine")
        import torch

        from capacity.models.device_memory import free_gpu_memory

        free = min(free_gpu_memory(torch.device(f"cuda:{number}")) or 0 for number in self.numbers)
        return Room(free, self.each, "a GPU")

    def run(
        self,
        study: Study,
        jobs: Sequence[Sequence[RunSpec]],
        fingerprint: Fingerprint,
        on_event: Callable[[Event], None],
        checkpoint_minutes: float,
    ) -> None:
        """Makes the runs of all jobs; see `capacity.studies.workers.run_all`."""
        specs = [spec for job in jobs for spec in job]
        processes.run_all(study, specs, fingerprint, self.workers, on_event, jobs, checkpoint_minutes, gpus=self.gpus)


def local_executor(workers: int | None = None, devices: Sequence[int] = ()) -> Local:
    """Returns workers on this machine.

    Args:
        workers: the number of processes. If None: one a GPU, and on a CPU one a core and at most four.
        devices: the GPUs that are used, by number; all of them if empty.

    Raises:
        SpecError: if one of these GPUs is not there.
    """
    there = gpus()
    absent = [number for number in devices if number >= len(there)]
    if absent:
        numbers = ", ".join(map(str, absent))
        has = f"its GPUs are {', '.join(map(str, range(len(there))))}" if there else "it has no GPU that torch can use"
        raise SpecError(f"--devices {','.join(map(str, devices))}: this machine has no GPU {numbers}; {has}")
    chosen = tuple(devices) or tuple(range(len(there)))
    count = workers or len(chosen) or min(_MOST_BY_DEFAULT, os.cpu_count() or 1)
    return Local(count, tuple(there[number] for number in chosen), chosen)
