"""Times the steps of runs that train, and measures the memory that they take."""

import gc
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capacity.training.batch import Batch
from capacity.training.loop import Passes, Trainee


def now(device: str) -> float:
    """Returns the time at which the device has done all that it was told, in seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Clocked:
    """Makes the passes of runs and remembers when each step began. See `capacity.training.loop.Passes`."""

    passes: Passes
    device: str
    marks: list[float] = field(default_factory=list)

    def batches(self, trainees: Sequence[Trainee]) -> list[Batch]:
        """Returns the sequences of each run's next step."""
        self.marks.append(now(self.device))
        return self.passes.batches(trainees)

    def losses(self, trainees: Sequence[Trainee], batches: Sequence[Batch]) -> list[Tensor]:
        """Returns the loss of each run's step."""
        return self.passes.losses(trainees, batches)

    def seconds(self) -> float:
        """Returns the median time of a step. Call it when training has ended. The first step is a warm-up."""
        return median_step([*self.marks, now(self.device)])


def median_step(marks: Sequence[float]) -> float:
    """Returns the median time between marks, without the first step if there are others."""
    steps = [after - before for before, after in pairwise(marks)]
    kept = sorted(steps[1:] or steps)
    return kept[len(kept) // 2]


@dataclass
class Peak:
    """The largest number of bytes that tensors took at once."""

    bytes: int = 0


@contextmanager
def measured_peak(device: str) -> Iterator[Peak]:
    """Measures the memory of the tensors that are made within the context; on a GPU that of all tensors."""
    gc.collect()
    peak = Peak()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated()
        return
    counting = _Counting()
    with counting:
        yield peak
    peak.bytes = counting.most


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: set[int] = set()
        self.alive = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        self.alive += storage.nbytes()
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())

    def _freed(self, key: int, count: int) -> None:
        self.known.discard(key)
        self.alive -= count
