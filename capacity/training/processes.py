"""Makes one run over several processes. Each holds the whole model on a device of its own.

Every process walks through the same steps with the same random numbers. The rows of a step are divided among the
processes. Each samples its rows, and completions are gathered. Each computes the loss of its rows, and gradients are
summed. So all make the same update. Up to the order of summation, it is the one that a single process would make.
Without a process group (`torchrun`, `accelerate launch`) there is one process, and nothing is exchanged.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from capacity.errors import CapacityError, TrainingError
from capacity.forward.rollout import Rollout, pad_left
from capacity.sampling.memory_slices import joined
from capacity.sampling.sampler import Sampler

Value = TypeVar("Value")


class FailedElsewhere(TrainingError):
    """Another process of the run has failed."""


@dataclass(frozen=True)
class Processes:
    """`count` processes make one run together. This one has the number `rank`, counted from 0."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Returns the processes of the process group; a group of one if there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def own(self, rows: int) -> tuple[int, int]:
        """Returns the range of this process's rows, from the first to before the last.

        The ranges of all processes, in their order, cover all rows. They are as even as possible.
        """
        return self.rank * rows // self.count, (self.rank + 1) * rows // self.count

    def gathered(self, value: Value) -> list[Value]:
        """Returns the value of every process, in the order of the processes.

        Raises:
            FailedElsewhere: if another process ends the run instead (`fail`). Its message is that of the error there.
        """
        return [value] if self.count == 1 else self._exchanged((value, None))

    def fail(self, error: CapacityError) -> None:
        """Ends the run in all processes, after an error that only this one may have seen.

        The others hear of it where they exchange something next: every exchange of a run can carry an error.
        """
        if self.count > 1:
            with suppress(FailedElsewhere):  # of a process that failed at the same time
                self._exchanged((None, str(error)))

    def _exchanged(self, told: tuple[Any, str | None]) -> list[Any]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, told)
        errors = [error for _, error in found if error is not None]
        if errors:
            raise FailedElsewhere(errors[0])
        return [value for value, _ in found]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes.

        Raises:
            FailedElsewhere: as `gathered`.
        """
        if self.count > 1:
            self.gathered(None)
            for tensor in tensors:
                dist.all_reduce(tensor)


class DividedSampler:
    """Samples from the trainer's own model, with the prompts divided over the processes. See `Sampler`.

    Each sequence gets the random numbers that it would get in a single process.
    """

    engine_name: str | None = None

    def __init__(self, sampler: Sampler, pad: int, device: torch.device, processes: Processes) -> None:
        self.sampler = sampler
        self.pad = pad
        self.device = device
        self.processes = processes

    def follow(self, prompts: Sequence[Sequence[int]], where: str) -> dict[str, Any]:
        """Lets the divided sampler follow the update."""
        return self.sampler.follow(prompts, where)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        rng: np.random.Generator,
        *,
        temperature: float,
        max_new_tokens: int,
        base: bool = False,
    ) -> Rollout:
        """Returns one completion of each prompt, the same on every process."""
        start, stop = self.processes.own(len(prompts))
        rng.random((start, max_new_tokens))  # those of the processes before this one
        options: dict[str, Any] = {"temperature": temperature, "max_new_tokens": max_new_tokens, "base": base}
        part = self.sampler.sample(prompts[start:stop], rng, **options) if stop > start else None
        rng.random((len(prompts) - stop, max_new_tokens))
        gathered = self.processes.gathered(None if part is None else part.to(torch.device("cpu")))
        parts = [found for found in gathered if found is not None]
        counts = [len(found.completion_ids) for found in parts]
        ids, mask = pad_left(prompts, self.pad)  # as wide as the longest prompt of all
        split = zip(torch.split(ids, counts), torch.split(mask, counts), parts, strict=True)
        wide = [replace(found, prompt_ids=i, prompt_mask=m) for i, m, found in split]
        return joined(wide, self.pad).to(self.device)

    def close(self) -> None:
        """Closes the divided sampler."""
        self.sampler.close()
