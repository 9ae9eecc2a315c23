"""Trains by rejection-sampling fine-tuning: supervised training on own samples that the grader passes.

`rft` samples the untrained base, and `rft-online` samples the current policy. Both draw the same uniform numbers as
`grpo`. Samples of the base do not depend on the update, so they can be drawn when their step comes.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from capacity.errors import TrainingError
from capacity.spec.parts import RftSpec
from capacity.tasks.task import Item
from capacity.training.arm import Asking
from capacity.training.batch import Batch
from capacity.training.batches import ROLLOUT_STREAM, generator
from capacity.training.sft import SupervisedArm

_ROUNDS = 8  # draws of samples_per_prompt each, until every prompt has a right sample


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
    ) -> Asking[list[list[list[int]]]]:
        """Asks for samples and returns the correct ones of k samples of each prompt, as token ids.

        Prompts without a correct sample are sampled again, in at most `rounds` rounds.
        """
        right: list[list[list[int]]] = [[] for _ in prompts]
        frozen = self.spec.method == "rft"
        for _ in range(rounds):
            wanted = [i for i, samples in enumerate(right) if not samples]
            if not wanted:
                break
            laid_out = [prompts[i] for i in wanted for _ in range(k)]
            rollout, rewards = yield from self.sampled(laid_out, self.rft.temperature, rng, base=frozen)
            for row, (ids, mask) in enumerate(zip(rollout.completion_ids, rollout.completion_mask, strict=True)):
                if rewards[row]:
                    right[wanted[row // k]].append(ids[mask.bool()].tolist())
        return right
