"""The two arms of a pair: where a step's sequences come from, and which loss they get. All else is shared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.inject import AdaptedModel
from capacity.config import FullUpdate, GrpoSpec, RunSpec, TrainingSpec
from capacity.errors import TrainingError
from capacity.tasks.task import Item, Task
from capacity.training import advantage, losses
from capacity.training.batches import (
    DEMONSTRATION_STREAM,
    ROLLOUT_STREAM,
    encode_completions,
    encode_prompts,
    generator,
)
from capacity.training.rollout import Rollout, forward_logits, pad_left, pad_right, sample

OnStep = Callable[[int, dict[str, Any]], None]


@dataclass
class Batch:
    """One step's sequences. `rewards` and `advantages`, (B,), only when the sequences are own samples."""

    rollout: Rollout
    base_logits: Tensor
    rewards: Tensor | None = None
    advantages: Tensor | None = None


@dataclass
class Cost:
    """What training used: `flops` counts 2 a parameter and token forward, as much or twice as much backward."""

    prompts: int = 0
    sequences: int = 0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    flops: int = 0


class Arm:
    """What both arms share: device, metrics of each step, costs, the check of the loss."""

    def __init__(
        self, adapted: AdaptedModel, tokenizer: Any, task: Task, spec: RunSpec, on_step: OnStep | None = None
    ) -> None:
        assert spec.training is not None
        self.adapted = adapted
        self.tokenizer = tokenizer
        self.task = task
        self.spec = spec
        self.training: TrainingSpec = spec.training
        self.on_step = on_step
        self.metrics: list[dict[str, Any]] = []
        self.cost = Cost()
        self.parameters = sum(p.numel() for p in adapted.bare.parameters())
        self.device = next(adapted.model.parameters()).device
        start = adapted.vector()
        self.start = start if bool(start.any()) else None  # lora, vb-lora and uni-lora start from random numbers

    def batch(self, items: Sequence[Item]) -> Batch:
        """The sequences of one step; `items` holds each prompt samples_per_prompt times in a row."""
        raise NotImplementedError

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The loss of one step and what this arm measures beside it."""
        raise NotImplementedError

    def finish(self, rollout: Rollout, prompts: int) -> Tensor:
        """Counts the step's cost and gives the untrained model's logits on its sequences, (B, T, V)."""
        with torch.no_grad(), self.adapted.switched_off():
            base_logits = forward_logits(self.adapted.model, rollout).float()
        tokens = int(rollout.prompt_mask.sum() + rollout.completion_mask.sum())
        self.cost.prompts += prompts
        self.cost.sequences += rollout.completion_ids.shape[0]
        self.cost.trained_tokens += int(rollout.completion_mask.sum())
        backward = 4 if isinstance(self.spec.adapter, FullUpdate) else 2
        self.cost.flops += (2 + backward) * self.parameters * tokens
        return base_logits

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one step; records its metrics, all of them from before the update.

        Raises:
            TrainingError: the loss is not finite.
        """
        rollout, mask = batch.rollout, batch.rollout.completion_mask
        logits = forward_logits(self.adapted.model, rollout).float()
        loss, extra = self.objective(logits, batch)
        step = len(self.metrics)
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {step} of {self.training.steps}: "
                f"lower the learning rate, now {self.training.learning_rate:g}"
            )
        with torch.no_grad():
            logprobs = losses.token_logprobs(logits, rollout.completion_ids)
            row = {
                "step": step,
                "loss": float(loss),
                "mean_length": float(mask.sum(-1).float().mean()),
                "entropy_bits": float(losses.mean_entropy(logits, mask)) / math.log(2),
                "kl_to_base_bits": float(losses.mean_kl(logits, batch.base_logits, mask)) / math.log(2),
                "code_length_bits": losses.code_length_bits(logprobs, mask),
                "trained_tokens": int(mask.sum()),
                **extra,
            }
        self.metrics.append(row)
        if self.on_step is not None:
            self.on_step(step, row)
        return loss

    def diagnose(self) -> None:
        """Looks at the finished training as a whole.

        Raises:
            TrainingError: the update is not finite, or has not moved at all.
        """
        update = self.adapted.vector()
        if not bool(update.isfinite().all()):
            raise TrainingError(f"the update is not finite: lower the learning rate, {self.training.learning_rate:g}")
        if torch.equal(update, torch.zeros_like(update) if self.start is None else self.start):
            raise TrainingError("training has not moved the update at all: no step had a gradient")


class SftArm(Arm):
    """Supervised fine-tuning on the task's demonstrations, samples_per_prompt of each prompt."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng: np.random.Generator = generator(self.spec.seed, DEMONSTRATION_STREAM)

    def batch(self, items: Sequence[Item]) -> Batch:
        """Demonstrations of each prompt, drawn anew."""
        k = self.training.samples_per_prompt
        style = self.spec.task.demonstrations
        prompts = items[::k]
        texts = [text for item in prompts for text in self.task.demonstrations(item, style, k, self.rng)]
        completions = encode_completions(self.tokenizer, texts)
        longest = max(map(len, completions))
        if longest > self.training.max_new_tokens:
            raise TrainingError(
                f"a demonstration of task {self.task.name} has {longest} tokens, "
                f"more than max_new_tokens {self.training.max_new_tokens}"
            )
        prompt_ids, prompt_mask = pad_left(encode_prompts(self.tokenizer, items), self.tokenizer.pad_token_id)
        ids, mask = pad_right(completions, self.tokenizer.pad_token_id)
        zeros = torch.zeros(ids.shape)
        parts = (t.to(self.device) for t in (prompt_ids, prompt_mask, ids, mask, zeros))
        rollout = Rollout(*parts)
        return Batch(rollout, self.finish(rollout, len(prompts)))

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Mean negative log-likelihood of the demonstrations' tokens."""
        logprobs = losses.token_logprobs(logits, batch.rollout.completion_ids)
        return losses.sft_loss(logprobs, batch.rollout.completion_mask), {}


class GrpoArm(Arm):
    """GRPO on own samples, the task's grader as reward."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.spec.grpo is not None
        self.grpo: GrpoSpec = self.spec.grpo
        self.rng: np.random.Generator = generator(self.spec.seed, ROLLOUT_STREAM)

    def batch(self, items: Sequence[Item]) -> Batch:
        """Samples of the current policy with rewards and group-relative advantages."""
        k = self.training.samples_per_prompt
        prompt_ids, prompt_mask = pad_left(encode_prompts(self.tokenizer, items), self.tokenizer.pad_token_id)
        uniforms = torch.from_numpy(self.rng.random((len(items), self.training.max_new_tokens)))
        rollout = sample(
            self.adapted.model,
            prompt_ids.to(self.device),
            prompt_mask.to(self.device),
            uniforms,
            temperature=self.grpo.temperature,
            eos=self.tokenizer.eos_token_id,
            pad=self.tokenizer.pad_token_id,
        )
        texts = self.tokenizer.batch_decode(rollout.completion_ids, skip_special_tokens=True)
        rewards = torch.tensor(
            [float(self.task.grade(item, text)) for item, text in zip(items, texts, strict=True)],
            device=self.device,
        )
        sampled = int(rollout.completion_mask.sum())
        self.cost.sampled_tokens += sampled
        self.cost.flops += 2 * self.parameters * (int(prompt_mask.sum()) + sampled)
        advantages = advantage.group_advantages(rewards, k, self.grpo.advantage_epsilon)
        return Batch(rollout, self.finish(rollout, len(items) // k), rewards, advantages)

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The clipped surrogate; one update a batch, so the samples are on policy and the ratio is 1."""
        assert batch.rewards is not None
        assert batch.advantages is not None
        rollout, k = batch.rollout, self.training.samples_per_prompt
        mask = rollout.completion_mask
        logprobs = losses.token_logprobs(logits, rollout.completion_ids, self.grpo.temperature)
        loss = losses.grpo_loss(logprobs, logprobs.detach(), batch.advantages, mask, self.grpo.epsilon)
        hits = advantage.group_hits(batch.rewards, k)
        kl = losses.mean_sampled_kl(rollout.sampler_logprobs, logprobs.detach(), mask)
        extra = {
            "reward": float(batch.rewards.mean()),
            "kl_to_sampler_bits": float(kl) / math.log(2),
            "group_hits": hits,
            "dead_groups": advantage.dead_groups(hits, k),
            "reward_bits": sum(losses.kt_code_bits(h, k) for h in hits),
        }
        return loss, extra

    def diagnose(self) -> None:
        """Also looks at the rewards.

        Raises:
            TrainingError: no group of any step had rewards that differ, so there was no gradient at all.
        """
        k = self.training.samples_per_prompt
        if all(row["dead_groups"] == len(row["group_hits"]) for row in self.metrics):
            mean = sum(row["reward"] for row in self.metrics) / len(self.metrics)
            raise TrainingError(
                f"the reward never varied within a group in {len(self.metrics)} steps (mean reward {mean:.3f}, "
                f"{k} samples a prompt at temperature {self.grpo.temperature:g}): there was no gradient and nothing "
                "was learnt; choose a task that the base model solves sometimes, but not always"
            )
        super().diagnose()


def arm_of(
    adapted: AdaptedModel, tokenizer: Any, task: Task, spec: RunSpec, on_step: OnStep | None = None
) -> SftArm | GrpoArm:
    """The arm of the run's method."""
    return (GrpoArm if spec.method == "grpo" else SftArm)(adapted, tokenizer, task, spec, on_step)
