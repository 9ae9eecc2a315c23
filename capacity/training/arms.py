"""What all methods share: a step takes prompts, makes sequences of them, and minimises a loss.

Where the sequences come from and which loss they get is each method's own: `sft`, `rft`, `grpo`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.inject import AdaptedModel
from capacity.config import FullUpdate, RunSpec, TrainingSpec
from capacity.errors import TrainingError
from capacity.tasks.task import Item, Task
from capacity.training import losses
from capacity.training.batches import encode_completions, encode_prompts
from capacity.training.rollout import Rollout, forward_logits, pad_left, pad_right, sample

OnStep = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Batch:
    """One step's sequences. `rewards` and `advantages`, (B,), only when the sequences are own samples.

    `base_logits`, (B, T, V): the untrained model's on these sequences. `extra`: what the source measured.
    """

    rollout: Rollout
    base_logits: Tensor
    extra: dict[str, Any]
    rewards: Tensor | None = None
    advantages: Tensor | None = None


@dataclass
class Cost:
    """What training used.

    `prompts` counts those whose sequences were trained on, a prompt as often as it came. `flops` counts 2 a parameter
    and token forward, as much or twice as much backward; measurements beside the training are not in it.
    """

    prompts: int = 0
    sequences: int = 0
    sampled_sequences: int = 0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    flops: int = 0


@dataclass
class Recorder:
    """What a run's arms record, one after the other: metrics of each step, costs. `on_step` hears of each step."""

    metrics: list[dict[str, Any]]
    cost: Cost
    on_step: OnStep | None = None


class Arm:
    """One method, or one phase of `sft+grpo`: device, metrics of each step, costs, the check of the loss.

    Args:
        adapted: the model with its update.
        tokenizer: of the model.
        task: prompts, demonstrations and grader.
        spec: the run.
        training: of this phase; the run's own if None.
        recorder: shared by the phases of a run.
    """

    trainer: Literal["sft", "grpo"]  # which of TRL's trainers it goes with
    phase: str | None = None  # written to the metrics of runs that have several

    def __init__(
        self,
        adapted: AdaptedModel,
        tokenizer: Any,
        task: Task,
        spec: RunSpec,
        training: TrainingSpec | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        training = training or spec.training
        assert training is not None
        self.adapted = adapted
        self.tokenizer = tokenizer
        self.task = task
        self.spec = spec
        self.training: TrainingSpec = training
        self.recorder = recorder or Recorder([], Cost())
        self.first_step = len(self.recorder.metrics)
        self.parameters = sum(p.numel() for p in adapted.bare.parameters())
        self.device = next(adapted.model.parameters()).device
        start = adapted.vector()
        self.start = start if bool(start.any()) else None  # random, or trained by an earlier phase

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The steps of this arm so far."""
        return self.recorder.metrics[self.first_step :]

    @property
    def cost(self) -> Cost:
        """What the run has used so far."""
        return self.recorder.cost

    @property
    def prompts_per_step(self) -> int:
        """Different prompts that a step draws."""
        return self.training.prompts_per_step

    @property
    def sequences_per_prompt(self) -> int:
        """How often each of them stands in a step's items, in a row."""
        return self.training.samples_per_prompt

    def batch(self, items: Sequence[Item]) -> Batch:
        """The sequences of one step; `items` holds each prompt `sequences_per_prompt` times in a row."""
        raise NotImplementedError

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The loss of one step and what this arm measures beside it."""
        raise NotImplementedError

    def sampled(self, items: Sequence[Item], temperature: float, rng: np.random.Generator) -> tuple[Rollout, Tensor]:
        """One sample of the model, as it is, for each of `items`, and its rewards (B,), 0 or 1. Counts the cost."""
        prompt_ids, prompt_mask = pad_left(encode_prompts(self.tokenizer, items), self.tokenizer.pad_token_id)
        rollout = sample(
            self.adapted.model,
            prompt_ids.to(self.device),
            prompt_mask.to(self.device),
            torch.from_numpy(rng.random((len(items), self.training.max_new_tokens))),
            temperature=temperature,
            eos=self.tokenizer.eos_token_id,
            pad=self.tokenizer.pad_token_id,
        )
        texts = self.tokenizer.batch_decode(rollout.completion_ids, skip_special_tokens=True)
        rewards = [float(self.task.grade(item, text)) for item, text in zip(items, texts, strict=True)]
        tokens = int(rollout.completion_mask.sum())
        self.cost.sampled_sequences += len(items)
        self.cost.sampled_tokens += tokens
        self.cost.flops += 2 * self.parameters * (int(prompt_mask.sum()) + tokens)
        return rollout, torch.tensor(rewards, device=self.device)

    def written(self, items: Sequence[Item], completions: Sequence[Sequence[int]]) -> Rollout:
        """Given completions, ended by the end-of-sequence token, one for each of `items`.

        Raises:
            TrainingError: one is longer than the run allows.
        """
        longest = max(map(len, completions))
        if longest > self.training.max_new_tokens:
            raise TrainingError(
                f"a demonstration of task {self.task.name} has {longest} tokens, "
                f"more than max_new_tokens {self.training.max_new_tokens}"
            )
        prompt_ids, prompt_mask = pad_left(encode_prompts(self.tokenizer, items), self.tokenizer.pad_token_id)
        ids, mask = pad_right(completions, self.tokenizer.pad_token_id)
        return Rollout(*(t.to(self.device) for t in (prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape))))

    def demonstrated(self, items: Sequence[Item], count: int, rng: np.random.Generator) -> list[list[int]]:
        """`count` demonstrations of each item as token ids."""
        texts = [text for item in items for text in self.task.demonstrations(item, count, rng)]
        return encode_completions(self.tokenizer, texts)

    def within_tokens(self, rollout: Rollout) -> int:
        """How many of the step's sequences are trained on: all, or with matching "tokens" those of as many prompts
        as the tokens of all steps so far allow, one at least."""
        per_step, k = self.training.tokens_per_step, self.sequences_per_prompt
        if per_step is None:
            return len(rollout.completion_ids)
        steps = len(self.metrics) + 1
        left = per_step * steps - sum(row["trained_tokens"] for row in self.metrics)
        ends = rollout.completion_mask.sum(1).view(-1, k).sum(1).cumsum(0)
        return max(1, int((ends <= left).sum())) * k

    def finish(
        self, rollout: Rollout, rewards: Tensor | None = None, advantages: Tensor | None = None, **extra: Any
    ) -> Batch:
        """The batch of a step: drops what matching leaves out, counts the cost, asks the untrained model."""
        count = self.within_tokens(rollout)
        if count < len(rollout.completion_ids):
            rollout = Rollout(*(t[:count] for t in vars(rollout).values()))
            rewards, advantages = (t if t is None else t[:count] for t in (rewards, advantages))
        with torch.no_grad(), self.adapted.switched_off():
            base_logits = forward_logits(self.adapted.model, rollout).float()
        tokens = int(rollout.prompt_mask.sum() + rollout.completion_mask.sum())
        self.cost.prompts += count // self.sequences_per_prompt
        self.cost.sequences += count
        self.cost.trained_tokens += int(rollout.completion_mask.sum())
        backward = 4 if isinstance(self.spec.adapter, FullUpdate) else 2
        self.cost.flops += (2 + backward) * self.parameters * tokens
        return Batch(rollout, base_logits, extra, rewards, advantages)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one step; records its metrics, all of them from before the update.

        Raises:
            TrainingError: the loss is not finite.
        """
        rollout, mask = batch.rollout, batch.rollout.completion_mask
        logits = forward_logits(self.adapted.model, rollout).float()
        loss, extra = self.objective(logits, batch)
        step = len(self.recorder.metrics)
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {step}: "
                f"lower the learning rate, now {self.training.learning_rate:g}"
            )
        with torch.no_grad():
            logprobs = losses.token_logprobs(logits, rollout.completion_ids)
            base_logprobs = losses.token_logprobs(batch.base_logits, rollout.completion_ids)
            row = {
                "step": step,
                "loss": float(loss),
                "mean_length": float(mask.sum(-1).float().mean()),
                "entropy_bits": float(losses.mean_entropy(logits, mask)) / math.log(2),
                "kl_to_base_bits": float(losses.mean_kl(logits, batch.base_logits, mask)) / math.log(2),
                "code_length_bits": losses.code_length_bits(logprobs, mask),
                "base_code_length_bits": losses.code_length_bits(base_logprobs, mask),
                "trained_tokens": int(mask.sum()),
                **batch.extra,
                **extra,
            }
        if self.phase is not None:
            row["phase"] = self.phase
        self.recorder.metrics.append(row)
        if self.recorder.on_step is not None:
            self.recorder.on_step(step, row)
        return loss

    def diagnose(self) -> None:
        """Looks at the finished training as a whole.

        Raises:
            TrainingError: the update is not finite, or has not moved at all.
        """
        update = self.adapted.vector()
        if not bool(update.isfinite().all()):
            raise TrainingError(f"the update is not finite: lower the learning rate, {self.training.learning_rate:g}")
        unmoved = torch.equal(update, torch.zeros_like(update) if self.start is None else self.start)
        if unmoved and self.phase is None:
            raise TrainingError("training has not moved the update at all: no step had a gradient")
