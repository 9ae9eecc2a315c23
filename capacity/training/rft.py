"""Rejection-sampling fine-tuning: supervised training on own samples that the grader passes.

`rft` samples the untrained base (what is drawn for a prompt does not depend on the update, so it makes no difference
that it is drawn when its step comes); `rft-online` samples the current policy. Both draw the same uniforms as `grpo`.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from capacity.errors import TrainingError
from capacity.spec.parts import RftSpec
from capacity.tasks.task import Item
from capacity.training.batches import ROLLOUT_STREAM, generator
from capacity.training.sft import SupervisedArm
from capacity.training.step import Batch

_ROUNDS = 8  # draws of samples_per_prompt each, until every prompt has a right sample


class RftArm(SupervisedArm):
    """As many samples of each prompt as `grpo` draws; the right ones are repeated until they are as many again.

    A prompt without a right sample is drawn again, up to eight times in all, and then left out of the step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.spec.rft is not None
        self.rft: RftSpec = self.spec.rft
        self.rng: np.random.Generator = generator(self.spec.seed, ROLLOUT_STREAM)

    def batch(self, items: Sequence[Item]) -> Batch:
        """Right samples of each prompt.

        Raises:
            TrainingError: no prompt of the step has any.
        """
        k = self.sequences_per_prompt
        prompts = items[::k]
        right = self.right_samples(prompts, k, self.rng)
        solved = [i for i, samples in enumerate(right) if samples]
        if not solved:
            raise TrainingError(
                f"none of {len(prompts)} prompts was solved in {_ROUNDS * k} samples each: there is nothing to train "
                "on; choose a task that the base model solves sometimes"
            )
        laid_out = [prompts[i] for i in solved for _ in range(k)]
        completions = [tokens for i in solved for tokens in islice(cycle(right[i]), k)]
        different = sum(min(len(right[i]), k) for i in solved)
        return self.finish(
            self.written(laid_out, completions),
            unsolved_prompts=len(prompts) - len(solved),
            different_samples=different,
            **self.sampling,
        )

    def right_samples(
        self, prompts: Sequence[Item], k: int, rng: np.random.Generator, rounds: int = _ROUNDS
    ) -> list[list[list[int]]]:
        """For each prompt the right ones of k samples, as token ids; more rounds only for prompts without any."""
        right: list[list[list[int]]] = [[] for _ in prompts]
        frozen = self.spec.method == "rft"
        for _ in range(rounds):
            wanted = [i for i, samples in enumerate(right) if not samples]
            if not wanted:
                break
            laid_out = [prompts[i] for i in wanted for _ in range(k)]
            rollout, rewards = self.sampled(laid_out, self.rft.temperature, rng, base=frozen)
            for row, (ids, mask) in enumerate(zip(rollout.completion_ids, rollout.completion_mask, strict=True)):
                if rewards[row]:
                    right[wanted[row // k]].append(ids[mask.bool()].tolist())
        return right
