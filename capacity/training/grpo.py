"""Trains by GRPO, and by its control with random rewards."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.codes import kt_code_bits
from capacity.errors import TrainingError
from capacity.forward.predictions import Predictions
from capacity.sampling import likelihood
from capacity.spec.parts import GrpoSpec
from capacity.tasks.task import Item
from capacity.training import advantage, losses
from capacity.training.arm import Arm, Asking
from capacity.training.batch import Batch
from capacity.training.batches import PERMUTATION_STREAM, ROLLOUT_STREAM, generator
from capacity.training.importance import effective_share, importance_weights


class GrpoArm(Arm):
    """GRPO trains on own samples. The task's grader gives the rewards."""

    trl_trainer = "grpo"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.spec.grpo is not None
        self.grpo: GrpoSpec = self.spec.grpo
        self.rng: np.random.Generator = generator(self.spec.seed, ROLLOUT_STREAM)

    def gather(self, items: Sequence[Item]) -> Asking[Batch]:
        """Asks for samples of the current policy and returns them with rewards and group-relative advantages."""
        rollout, graded = yield from self.sampled(items, self.grpo.temperature, self.rng)
        rewards = self.rewarded(graded)
        k = self.training.samples_per_prompt
        advantages = advantage.group_advantages(rewards, k, self.grpo.advantage_epsilon)
        return self.finish(rollout, rewards, advantages, **self.sampling)

    def rewarded(self, graded: Tensor) -> Tensor:
        """Returns the rewards (B,) that the samples get for their grades (B,)."""
        return graded

    def with_gradient(self, batch: Batch) -> Batch:
        """Leaves out the groups whose rewards are all equal.

        Their advantages are zero and there is no KL term, so their gradient is exactly zero. Samples of another engine
        all stay, because the pass measures how far that engine is from the trainer.
        """
        assert batch.advantages is not None
        if batch.rollout.plain_logprobs is None:
            return batch
        groups = batch.advantages.view(-1, self.training.samples_per_prompt)
        alive = groups.any(1, keepdim=True).expand_as(groups).reshape(-1)
        return batch if bool(alive.all()) else batch.selected(alive)

    @property
    def measures_base(self) -> bool:
        """Tells whether the next step measures the base: every `base_every`-th does, and the last one."""
        step = len(self.steps)
        return step % self.grpo.base_every == 0 or step + 1 == self.training.steps

    def objective(self, predictions: Predictions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the clipped surrogate loss of GRPO, and the log-probabilities (B, T) of the tokens.

        Each batch gets one update, so the samples are on policy and the ratio is 1.
        """
        assert batch.advantages is not None
        logprobs = predictions.logprobs(self.grpo.temperature)
        mask = batch.rollout.completion_mask
        weights = self.weights(logprobs, batch)
        loss = losses.grpo_loss(logprobs, logprobs.detach(), batch.advantages, mask, self.grpo.epsilon, weights)
        return loss, logprobs

    def weights(self, logprobs: Tensor, batch: Batch) -> Tensor | None:
        """Returns importance weights (B, T) for samples that another engine drew; None for those of the trainer."""
        rollouts = self.spec.rollouts
        if rollouts is None:
            return None
        rollout = batch.rollout
        sampler, mask = rollout.sampler_logprobs, rollout.completion_mask
        return importance_weights(logprobs, sampler, mask, rollouts.correction, rollouts.cap)

    def share(self, part: Batch, whole: Batch) -> float:
        """Returns the slice's share of the sequences, because the loss is a mean over sequences."""
        return part.sequences / whole.sequences

    def measured(self, logprobs: Tensor, batch: Batch) -> dict[str, Any]:
        """Measures the KL divergence of the sampler from the trainer, and what importance weights left."""
        rollout = batch.rollout
        kl = float(likelihood.mean_sampled_kl(rollout.sampler_logprobs, logprobs, rollout.completion_mask))
        return {"kl_to_sampler_bits": kl / math.log(2), **self.correction(logprobs, batch, kl / math.log(2))}

    def summary(self, batch: Batch) -> dict[str, Any]:
        """Returns the metrics of the rewards of a step."""
        assert batch.rewards is not None
        k = self.training.samples_per_prompt
        hits = advantage.group_hits(batch.rewards, k)
        return {
            "reward": float(batch.rewards.mean()),
            "group_hits": hits,
            "dead_groups": advantage.dead_groups(hits, k),
            "reward_bits": float(kt_code_bits(hits, k).sum()),
        }

    def correction(self, logprobs: Tensor, batch: Batch, kl_bits: float) -> dict[str, float]:
        """Measures what share of a step the importance weights left.

        It warns if the KL divergence between sampler and trainer is above the limit of the spec.
        """
        weights, rollouts = self.weights(logprobs, batch), self.spec.rollouts
        if weights is None or rollouts is None:
            return {}
        if kl_bits > rollouts.kl_warning:
            warnings.warn(
                f"{self.spec.label}, step {len(self.recorder.steps)}: KL to the sampler is {kl_bits:.3g} bits a "
                f"token, above {rollouts.kl_warning:g}: see docs/rollouts.md",
                stacklevel=2,
            )
        return {"importance_share": effective_share(weights, batch.rollout.completion_mask)}

    def diagnose(self) -> None:
        """Checks the rewards of the finished training, then the update.

        Raises:
            TrainingError: if rewards differed within no group of any step, so that there was no gradient. The same
                error says that the update is not finite, or has not moved.
        """
        k = self.training.samples_per_prompt
        # After a warm start there may be nothing left to learn.
        if self.phase is None and all(step.dead_groups == len(step.group_hits or ()) for step in self.steps):
            mean = sum(step.reward or 0.0 for step in self.steps) / len(self.steps)
            raise TrainingError(
                f"the reward never varied within a group in {len(self.steps)} steps (mean reward {mean:.3f}, "
                f"{k} samples a prompt at temperature {self.grpo.temperature:g}): there was no gradient and nothing "
                "was learnt; choose a task that the base model solves sometimes, but not always"
            )
        super().diagnose()


class RandomRewardArm(GrpoArm):
    """This control of GRPO permutes the rewards of each group at random. As many samples are rewarded as in GRPO.

    Groups whose rewards are all equal stay so. What this control gains is not learnt from the task.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.permutations: np.random.Generator = generator(self.spec.seed, PERMUTATION_STREAM)

    def rewarded(self, graded: Tensor) -> Tensor:
        """Permutes the grades (B,) of each group at random."""
        groups = graded.view(-1, self.training.samples_per_prompt).cpu().numpy()
        shuffled = self.permutations.permuted(groups, axis=1).reshape(-1)
        return torch.from_numpy(shuffled).to(graded)
