"""Remembers code lengths under a base, which are the same for all runs on it that see the same sequences.

`sft` draws demonstrations by its seed alone. So runs of one seed train on the same batches, at all sizes and learning
rates. The first of them computes the code lengths under the base for all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from capacity.forward.rollout import Rollout


@dataclass(frozen=True)
class BaseLengths:
    """Code lengths in bits of whole batches under one base.

    A batch is known again by all its tokens and their order. So a value does not depend on who asked for it first: each
    run would have computed it from the same tensors.
    """

    _known: dict[bytes, float] = field(default_factory=dict)

    def of(self, rollout: Rollout, compute: Callable[[], float]) -> float:
        """Returns the code length of all completions of a batch.

        Args:
            rollout: the sequences.
            compute: computes their code length. It is called if the batch has not been seen before.
        """
        key = _digest(rollout)
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _digest(rollout: Rollout) -> bytes:
    found = hashlib.sha256()
    for tensor in (rollout.prompt_ids, rollout.prompt_mask, rollout.completion_ids, rollout.completion_mask):
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.digest()
