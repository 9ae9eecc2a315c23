"""Supervised fine-tuning on the task's demonstrations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from capacity.sampling import likelihood
from capacity.tasks.task import Item
from capacity.training import losses
from capacity.training.batches import DEMONSTRATION_STREAM, generator
from capacity.training.step import Arm, Batch


class SupervisedArm(Arm):
    """Whatever minimises the negative log-likelihood of given sequences."""

    trainer = "sft"

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the completions' tokens."""
        logprobs = likelihood.token_logprobs(logits, batch.rollout.completion_ids)
        return losses.sft_loss(logprobs, batch.rollout.completion_mask), logprobs

    def share(self, part: Batch, whole: Batch) -> float:
        """That of its tokens, over which the loss is a mean."""
        return part.tokens / whole.tokens


class SftArm(SupervisedArm):
    """Demonstrations of each prompt, drawn anew; with matching "sequences" one of each of as many more prompts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng: np.random.Generator = generator(self.spec.seed, DEMONSTRATION_STREAM)

    @property
    def prompts_per_step(self) -> int:
        """Different prompts that a step draws."""
        training = self.training
        more = training.samples_per_prompt if training.match == "sequences" else 1
        return training.prompts_per_step * more

    @property
    def sequences_per_prompt(self) -> int:
        """Demonstrations of each."""
        return 1 if self.training.match == "sequences" else self.training.samples_per_prompt

    def batch(self, items: Sequence[Item]) -> Batch:
        """Demonstrations of each prompt."""
        k = self.sequences_per_prompt
        return self.finish(self.written(items, self.demonstrated(items[::k], k, self.rng)))
