"""What a step trains on, what a run has used so far, and the record of its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.forward.rollout import Rollout
from capacity.spec.result import Step

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Batch:
    """A batch holds the sequences of one step, or some of them.

    Attributes:
        rollout: the B sequences.
        extra: further metrics of the step, by their names in `Step`.
        rewards, advantages: one number per sequence, of shape (B,), if the sequences are own samples; else None.
        base_bits: the code length of each sequence under the base in bits, (B,), float64, if the base has drawn and
            measured them; else None.
    """

    rollout: Rollout
    extra: dict[str, Any]
    rewards: Tensor | None = None
    advantages: Tensor | None = None
    base_bits: Tensor | None = None

    @property
    def sequences(self) -> int:
        """Returns the number of sequences, B."""
        return len(self.rollout.completion_ids)

    @property
    def tokens(self) -> int:
        """Returns the number of tokens of all completions."""
        return int(self.rollout.completion_mask.sum())

    def rows(self, start: int, stop: int) -> "Batch":
        """Returns the sequences from `start` to before `stop`.

        If these are all sequences, it returns the batch itself.
        """
        if (start, stop) == (0, self.sequences):
            return self
        return self.selected(torch.arange(start, stop, device=self.rollout.completion_ids.device))

    def selected(self, rows: Tensor) -> "Batch":
        """Returns the sequences that `rows`, indices or booleans, names."""
        own = (t if t is None else t[rows] for t in (self.rewards, self.advantages, self.base_bits))
        return Batch(self.rollout.selected(rows), self.extra, *own)


@dataclass
class Cost:
    """A cost sums up what training used.

    Attributes:
        prompts: the number of prompts trained on. A repeated prompt counts each time.
        sequences: the number of sequences trained on.
        sampled_sequences, sampled_tokens: the numbers of sequences and completion tokens drawn for the training.
        trained_tokens: the number of completion tokens trained on.
        flops: floating-point operations, counted as 2 per parameter and token forward, and 2 or 4 backward.
            Measurements beside the training do not count.
    """

    prompts: int = 0
    sequences: int = 0
    sampled_sequences: int = 0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    flops: int = 0


@dataclass
class Recorder:
    """Collects what the arms of a run record, one after the other: the metrics of each step, and the costs.

    If `on_step` is given, it is called with the metrics of each step.
    """

    steps: list[Step]
    cost: Cost
    on_step: OnStep | None = None
