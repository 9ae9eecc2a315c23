"""One run over several processes, each with the whole model on a device of its own.

Every process walks through the same steps with the same random numbers. The rows of a step are divided: each samples
its rows, completions are gathered, each computes the loss of its rows, gradients are added up. So all make the same
update, the one that a single process would have made up to the order of summation. Without a process group (`torchrun`,
`accelerate launch`) there is one process, and nothing is exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from capacity.sampling.memory_slices import joined
from capacity.sampling.rollout import Rollout, pad_left
from capacity.sampling.sampler import Sampler

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """`count` processes, of which this is number `rank`."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Those of the process group, if there is one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def own(self, rows: int) -> tuple[int, int]:
        """This process's rows, from … to before …: all processes' in order are all rows, and as even as can be."""
        return self.rank * rows // self.count, (self.rank + 1) * rows // self.count

    def gathered(self, value: Value) -> list[Value]:
        """The value of every process, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)


class DividedSampler:
    """Samples of the trainer's own model, a share of the prompts in each process; see `Sampler`.

    Each sequence gets the random numbers that it would get in one process.
    """

    engine_name: str | None = None

    def __init__(self, sampler: Sampler, pad: int, device: torch.device, processes: Processes) -> None:
        self.sampler = sampler
        self.pad = pad
        self.device = device
        self.processes = processes

    def follow(self, prompts: Sequence[Sequence[int]], where: str) -> dict[str, Any]:
        """As the sampler that is divided."""
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
        """One completion of each prompt, on every process."""
        start, stop = self.processes.own(len(prompts))
        rng.random((start, max_new_tokens))  # those of the processes before this one
        options: dict[str, Any] = {"temperature": temperature, "max_new_tokens": max_new_tokens, "base": base}
        part = self.sampler.sample(prompts[start:stop], rng, **options) if stop > start else None
        rng.random((len(prompts) - stop, max_new_tokens))
        completions = [None if part is None else [t.cpu() for t in vars(part).values()][2:]]
        parts = [found for (found,) in self.processes.gathered(completions) if found is not None]
        counts = [len(ids) for ids, _, _ in parts]
        ids, mask = pad_left(prompts, self.pad)  # as wide as the longest prompt of all
        split = zip(torch.split(ids, counts), torch.split(mask, counts), parts, strict=True)
        whole = joined([Rollout(i, m, *found) for i, m, found in split], self.pad)
        return Rollout(*(t.to(self.device) for t in vars(whole).values()))

    def close(self) -> None:
        """As the sampler that is divided."""
        self.sampler.close()
