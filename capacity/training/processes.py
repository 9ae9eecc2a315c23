"""One run over several processes, each with the whole model on a device of its own.

Every process walks through the same steps with the same random numbers. The rows of a step are divided: each process
computes the loss of its rows, and gradients are added up. So all make the same update, the one that a single process
would have made up to the order of summation. Without a process group (`torchrun`, `accelerate launch`) there is one
process, and nothing is exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

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
