"""Remembers code lengths under a base, which are the same for all runs on it that see the same sequences.

`sft` draws demonstrations by its seed alone. So runs of one seed train on the same batches, at all sizes and learning
rates. The first of them computes the code lengths under the base for all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from capacity.forward.rollout import Rollout


@dataclass(frozen=True)
class BaseLengths:
    """Code lengths in bits under one base, of every sequence of whole batches.

    A batch is known again by all its tokens and their order. So a value does not depend on who asked for it first: each
    run would have computed it from the same tensors.
    """

    _known: dict[bytes, Tensor] = field(default_factory=dict)

    def of(self, rollout: Rollout, compute: Callable[[], Tensor]) -> Tensor:
        """Returns the code length of every completion of a batch, shape (B,), on the CPU.

        Args:
            rollout: the sequences.
            compute: computes their code lengths. It is called if the batch has not been seen before.
        """
        key = _digest(rollout)
        if key not in self._known:
            self._known[key] = compute().cpu()
        return self._known[key]


def _digest(rollout: Rollout) -> bytes:
    found = hashlib.sha256()
    for tensor in (rollout.prompt_ids, rollout.prompt_mask, rollout.completion_ids, rollout.completion_mask):
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.digest()
