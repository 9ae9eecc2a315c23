"""Trains by supervised fine-tuning on the task's demonstrations.

The KL divergence from the base needs a pass of the base. It is measured at every tenth step and at the last, as `grpo`
does. Excess description length needs the code length of every step under the base. Runs with equal batches share it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from capacity.forward.predictions import Predictions
from capacity.tasks.task import Item
from capacity.training import losses
from capacity.training.arm import Arm, Asking
from capacity.training.batch import Batch
from capacity.training.batches import DEMONSTRATION_STREAM, generator

_KL_EVERY = 10  # steps


class SupervisedArm(Arm):
    """Supervised methods minimise the negative log-likelihood of given sequences."""

    trl_trainer = "sft"

    def objective(self, predictions: Predictions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the mean negative log-likelihood of the completion tokens, and their log-probabilities (B, T)."""
        logprobs = predictions.logprobs()
        return losses.sft_loss(logprobs, batch.rollout.completion_mask), logprobs

    def share(self, part: Batch, whole: Batch) -> float:
        """Returns the slice's share of the tokens, because the loss is a mean over tokens."""
        return part.tokens / whole.tokens

    @property
    def measures_base(self) -> bool:
        """Tells whether the next step makes a pass of the base for the KL divergence from it."""
        step = len(self.steps)
        return step % _KL_EVERY == 0 or step + 1 == self.training.steps

    def base_code_length(self, part: Batch) -> float:
        """Returns the code length of some rows under the base, in bits: known from sampling, from earlier runs, or now.

        Once computed, it is remembered for later runs.
        """
        if part.base_bits is not None:
            return float(part.base_bits.sum())
        lengths = self.base_lengths.of(part.rollout, lambda: self.by_base(part.rollout).code_lengths_bits())
        return float(lengths.sum())


class SftArm(SupervisedArm):
    """Supervised fine-tuning draws the demonstrations of each prompt anew.

    With matching "sequences", each demonstration has a prompt of its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng: np.random.Generator = generator(self.spec.seed, DEMONSTRATION_STREAM)

    @property
    def prompts_per_step(self) -> int:
        """Returns the number of different prompts that a step draws."""
        training = self.training
        more = training.samples_per_prompt if training.match == "sequences" else 1
        return training.prompts_per_step * more

    @property
    def sequences_per_prompt(self) -> int:
        """Returns the number of demonstrations of each prompt."""
        return 1 if self.training.match == "sequences" else self.training.samples_per_prompt

    def gather(self, items: Sequence[Item]) -> Asking[Batch]:
        """Returns the demonstrations of each prompt of a step. It asks for no samples."""
        yield from ()
        k = self.sequences_per_prompt
        return self.finish(self.written(items, self.demonstrated(items[::k], k, self.rng)))
