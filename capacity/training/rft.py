"""Trains by rejection-sampling fine-tuning: supervised training on own samples that the grader passes.

`rft` samples the untrained base, and `rft-online` samples the current policy. Both draw the same uniform numbers as
`grpo`. Samples of the base do not depend on the update, so they can be drawn when their step comes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from capacity.errors import TrainingError
from capacity.spec.parts import RftSpec
from capacity.tasks.task import Item
from capacity.training.arm import Asking
from capacity.training.batch import Batch
from capacity.training.batches import ROLLOUT_STREAM, generator
from capacity.training.sft import SupervisedArm

_ROUNDS = 8  # draws of samples_per_prompt each, until every prompt has a correct sample


@dataclass(frozen=True)
class Sample:
    """A sample that the grader passes.

    Attributes:
        ids: its token ids.
        bits: its code length at temperature 1 under the model that drew it, in bits; None if that was not measured.
    """

    ids: list[int]
    bits: float | None


class RftArm(SupervisedArm):
    """Rejection-sampling fine-tuning draws as many samples of each prompt as `grpo`, and trains on the correct ones.

    Correct samples are repeated until they are as many as were drawn. A prompt without a correct sample is drawn again,
    up to eight times in all, and then left out of the step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.spec.rft is not None
        self.rft: RftSpec = self.spec.rft
        self.rng: np.random.Generator = generator(self.spec.seed, ROLLOUT_STREAM)

    def gather(self, items: Sequence[Item]) -> Asking[Batch]:
        """Asks for samples of each prompt and returns the correct ones.

        Raises:
            TrainingError: if no prompt of the step has a correct sample.
        """
        k = self.sequences_per_prompt
        prompts = items[::k]
        right = yield from self.right_samples(prompts, k, self.rng)
        solved = [i for i, samples in enumerate(right) if samples]
        if not solved:
            raise TrainingError(
                f"none of {len(prompts)} prompts was solved in {_ROUNDS * k} samples each: there is nothing to train "
                "on; choose a task that the base model solves sometimes"
            )
        laid_out = [prompts[i] for i in solved for _ in range(k)]
        samples = [sample for i in solved for sample in islice(cycle(right[i]), k)]
        different = sum(min(len(right[i]), k) for i in solved)
        return self.finish(
            self.written(laid_out, [sample.ids for sample in samples]),
            base_bits=self._under_base(samples),
            unsolved_prompts=len(prompts) - len(solved),
            different_samples=different,
            **self.sampling,
        )

    def right_samples(
        self, prompts: Sequence[Item], k: int, rng: np.random.Generator, rounds: int = _ROUNDS
    ) -> Asking[list[list[Sample]]]:
        """Asks for samples and returns the correct ones of k samples of each prompt.

        Prompts without a correct sample are sampled again, in at most `rounds` rounds.
        """
        right: list[list[Sample]] = [[] for _ in prompts]
        frozen = self.spec.method == "rft"
        for _ in range(rounds):
            wanted = [i for i, samples in enumerate(right) if not samples]
            if not wanted:
                break
            laid_out = [prompts[i] for i in wanted for _ in range(k)]
            rollout, rewards = yield from self.sampled(laid_out, self.rft.temperature, rng, base=frozen)
            measured = rollout.plain_logprobs
            bits = [None] * len(laid_out) if measured is None else (-measured.double().sum(1) / math.log(2)).tolist()
            for row, (ids, length) in enumerate(zip(rollout.completions(), bits, strict=True)):
                if rewards[row]:
                    right[wanted[row // k]].append(Sample(ids, length))
        return right

    def _under_base(self, samples: Sequence[Sample]) -> torch.Tensor | None:
        """Returns the code lengths under the base in bits, (B,), if the base has drawn and measured the samples."""
        bits = [sample.bits for sample in samples if sample.bits is not None]
        known = self.spec.method == "rft" and len(bits) == len(samples)
        return torch.tensor(bits, dtype=torch.float64, device=self.device) if known else None
