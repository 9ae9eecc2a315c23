"""Defines what all methods share: a step takes prompts, makes sequences of them, and minimises a loss.

Each method decides where its sequences come from and which loss they get. See `sft`, `rft` and `grpo`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.model import AdaptedModel
from capacity.errors import TrainingError
from capacity.models.ends import end_tokens
from capacity.sampling import likelihood
from capacity.sampling.evaluate import completions
from capacity.sampling.memory_slices import RowsAtOnce, slice_sizes, summed
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.rollout import Rollout, forward_logits, pad_left, pad_right
from capacity.sampling.sampler import Sampler
from capacity.spec.parts import TrainingSpec
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Task
from capacity.training.batches import encode_completions, encode_prompts
from capacity.training.processes import Processes

OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Batch:
    """A batch holds the sequences of one step, or a slice of them.

    Attributes:
        rollout: the B sequences.
        extra: further metrics of the step, by their names in `Step`.
        rewards, advantages: one number per sequence, of shape (B,), if the sequences are own samples; else None.
    """

    rollout: Rollout
    extra: dict[str, Any]
    rewards: Tensor | None = None
    advantages: Tensor | None = None

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
        rollout = Rollout(*(t[start:stop] for t in vars(self.rollout).values()))
        rewards, advantages = (t if t is None else t[start:stop] for t in (self.rewards, self.advantages))
        return Batch(rollout, self.extra, rewards, advantages)


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


@dataclass(frozen=True)
class _Seen:
    """Holds the measurements of the pass of one slice.

    Attributes:
        logprobs: the log-probabilities (B, T) of the objective, in nats.
        tokens: the number of completion tokens of the slice.
        entropy, kl_to_base: means over the tokens, in nats.
        code_length, base_code_length: sums over the tokens, in bits.
    """

    logprobs: Tensor
    tokens: int
    entropy: float
    kl_to_base: float
    code_length: float
    base_code_length: float


class Arm:
    """An arm trains by one method, or by one phase of `sft+grpo`. It records metrics and costs, and checks the loss.

    Args:
        adapted: the model with its update.
        tokenizer: the tokenizer of the model.
        task: the task, with prompts, demonstrations and grader.
        spec: the spec of the run.
        training: the training part of this phase; that of the run if None.
        recorder: the recorder that all phases of a run share; a new one if None.
        sampler: the sampler that all phases of a run share; the trainer's own model if None.
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
        sampler: Sampler | None = None,
    ) -> None:
        training = training or spec.training
        assert training is not None
        self.adapted = adapted
        self.tokenizer = tokenizer
        self.ends = end_tokens(adapted.bare, tokenizer)
        self.task = task
        self.spec = spec
        self.training: TrainingSpec = training
        self.recorder = recorder or Recorder([], Cost())
        self.first_step = len(self.recorder.steps)
        self.parameters = sum(p.numel() for p in adapted.bare.parameters())
        self.at_once = RowsAtOnce(adapted, spec.model)
        self.device = next(adapted.model.parameters()).device
        self.sampler: Sampler = sampler or TransformersSampler(adapted, tokenizer)
        self.sampling: dict[str, Any] = {}
        start = adapted.vector()
        self.start = start if bool(start.any()) else None  # random, or trained by an earlier phase

    @property
    def steps(self) -> list[Step]:
        """Returns the steps of this arm so far."""
        return self.recorder.steps[self.first_step :]

    @property
    def cost(self) -> Cost:
        """Returns what the run has used so far."""
        return self.recorder.cost

    @property
    def prompts_per_step(self) -> int:
        """Returns the number of different prompts that a step draws."""
        return self.training.prompts_per_step

    @property
    def sequences_per_prompt(self) -> int:
        """Returns how many times in a row each prompt occurs in a step's items."""
        return self.training.samples_per_prompt

    def batch(self, items: Sequence[Item]) -> Batch:
        """Returns the sequences of one step. `items` holds each prompt `sequences_per_prompt` times in a row."""
        raise NotImplementedError

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss of a step, or of a slice of its rows, and the log-probabilities (B, T) that it depends on.

        Args:
            logits: the logits of the completion tokens, of shape (B, T, vocabulary).
            batch: the sequences.
        """
        raise NotImplementedError

    def share(self, part: Batch, whole: Batch) -> float:
        """Returns the factor of a slice's loss with which the losses of all slices add up to the step's."""
        raise NotImplementedError

    def measured(self, logprobs: Tensor, batch: Batch) -> dict[str, Any]:  # noqa: ARG002
        """Returns the arm's own metrics of a whole step, given the log-probabilities (B, T) of its objective."""
        return {}

    def sampled(
        self, items: Sequence[Item], temperature: float, rng: np.random.Generator, *, base: bool = False
    ) -> tuple[Rollout, Tensor]:
        """Draws one sample of the current model for each of `items`, grades the samples, and counts the cost.

        If `base` is True, the untrained model is sampled. Otherwise the sampler first follows the update, and the
        attribute `sampling` holds what was measured of it.

        Returns:
            The samples, and their rewards (0 or 1) of shape (B,).
        """
        prompts = encode_prompts(self.tokenizer, items)
        if not base:
            self.sampling = self.sampler.follow(prompts, f"step {len(self.recorder.steps)}")
        longest = self.training.max_new_tokens
        rollout = self.sampler.sample(prompts, rng, temperature=temperature, max_new_tokens=longest, base=base)
        texts = self.ends.texts(self.tokenizer, completions(rollout))
        rewards = [float(self.task.grade(item, text)) for item, text in zip(items, texts, strict=True)]
        tokens = int(rollout.completion_mask.sum())
        self.cost.sampled_sequences += len(items)
        self.cost.sampled_tokens += tokens
        self.cost.flops += 2 * self.parameters * (int(rollout.prompt_mask.sum()) + tokens)
        return rollout, torch.tensor(rewards, device=self.device)

    def written(self, items: Sequence[Item], completions: Sequence[Sequence[int]]) -> Rollout:
        """Makes a rollout from given completions, one for each of `items`. Each ends with an end token.

        Raises:
            TrainingError: if a completion is longer than the run allows.
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
        """Returns `count` demonstrations of each item as token ids."""
        texts = [text for item in items for text in self.task.demonstrations(item, count, rng)]
        return encode_completions(self.tokenizer, texts, self.ends.after(items[0]))

    def within_tokens(self, rollout: Rollout) -> int:
        """Returns how many of the step's sequences are trained on.

        With matching "tokens", they are the sequences of as many prompts as the tokens of all steps so far allow. At
        least one prompt remains. With other matching, all sequences are trained on.
        """
        per_step, k = self.training.tokens_per_step, self.sequences_per_prompt
        if per_step is None:
            return len(rollout.completion_ids)
        steps = len(self.steps) + 1
        left = per_step * steps - sum(step.trained_tokens or 0 for step in self.steps)
        ends = rollout.completion_mask.sum(1).view(-1, k).sum(1).cumsum(0)
        return max(1, int((ends <= left).sum())) * k

    def finish(
        self, rollout: Rollout, rewards: Tensor | None = None, advantages: Tensor | None = None, **extra: Any
    ) -> Batch:
        """Makes the batch of a step: drops the sequences that matching leaves out, and counts the cost."""
        whole = Batch(rollout, extra, rewards, advantages)
        batch = whole.rows(0, self.within_tokens(rollout))
        tokens = int(batch.rollout.prompt_mask.sum() + batch.rollout.completion_mask.sum())
        self.cost.prompts += batch.sequences // self.sequences_per_prompt
        self.cost.sequences += batch.sequences
        self.cost.trained_tokens += batch.tokens
        backward = 4 if self.spec.adapter.every_weight else 2
        self.cost.flops += (2 + backward) * self.parameters * tokens
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss of one step, and records the metrics of the step before its update.

        If a step is too large for the device, its rows go through the model in slices. Up to the order of summation,
        the value and its gradient are those of the whole step. The gradient is then computed before `backward` asks for
        it.

        Raises:
            TrainingError: if the loss is not finite.
        """
        processes = Processes.current()
        first, last = processes.own(batch.sequences)
        sizes = slice_sizes(last - first, self.at_once(batch.rollout))
        ends = [first + end for end in accumulate(sizes)]
        parts = [batch.rows(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        seen: list[_Seen] = []

        def share(part: Batch) -> Tensor:
            loss, looked_at = self._one_pass(part)
            seen.append(looked_at)
            return loss if part is batch else loss * self.share(part, batch)

        if processes.count == len(parts) == 1:
            loss = share(batch)
        else:
            add_up = processes.add_up if processes.count > 1 else None
            loss = summed([partial(share, p) for p in parts], list(self.adapted.trained.values()), add_up)
        self._record(loss, batch, [s for found in processes.gathered(seen) for s in found])
        return loss

    def _one_pass(self, part: Batch) -> tuple[Tensor, "_Seen"]:
        """Returns the loss of some rows by themselves, and the measurements of their pass."""
        rollout, mask = part.rollout, part.rollout.completion_mask
        with torch.no_grad(), self.adapted.switched_off():
            base_logits = forward_logits(self.adapted.model, rollout).float()
        logits = forward_logits(self.adapted.model, rollout).float()
        loss, own = self.objective(logits, part)
        with torch.no_grad():
            logprobs = likelihood.token_logprobs(logits, rollout.completion_ids)
            base_logprobs = likelihood.token_logprobs(base_logits, rollout.completion_ids)
            looked_at = _Seen(
                own.detach().cpu(),
                part.tokens,
                float(likelihood.mean_entropy(logits, mask)),
                float(likelihood.mean_kl(logits, base_logits, mask)),
                likelihood.code_length_bits(logprobs, mask),
                likelihood.code_length_bits(base_logprobs, mask),
            )
        return loss, looked_at

    def _record(self, loss: Tensor, batch: Batch, seen: Sequence["_Seen"]) -> None:
        """Records the metrics of a step: sums over its slices, or means weighted by the tokens of the slices.

        Raises:
            TrainingError: if the loss is not finite.
        """
        step, value = len(self.recorder.steps), float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step}: lower the learning rate, now {self.training.learning_rate:g}"
            )
        weights = [s.tokens / batch.tokens for s in seen]
        row = {
            "step": step,
            "loss": value,
            "mean_length": float(batch.rollout.completion_mask.sum(-1).float().mean()),
            "entropy_bits": sum(w * s.entropy for w, s in zip(weights, seen, strict=True)) / math.log(2),
            "kl_to_base_bits": sum(w * s.kl_to_base for w, s in zip(weights, seen, strict=True)) / math.log(2),
            "code_length_bits": sum(s.code_length for s in seen),
            "base_code_length_bits": sum(s.base_code_length for s in seen),
            "trained_tokens": batch.tokens,
            **batch.extra,
            **self.measured(torch.cat([s.logprobs for s in seen]).to(self.device), batch),
        }
        if self.phase is not None:
            row["phase"] = self.phase
        self.recorder.steps.append(Step.model_validate(row))
        if self.recorder.on_step is not None:
            self.recorder.on_step(self.recorder.steps[-1])

    def diagnose(self) -> None:
        """Checks the update after the training has finished.

        Raises:
            TrainingError: if the update is not finite, or has not moved at all.
        """
        update = self.adapted.vector()
        if not bool(update.isfinite().all()):
            raise TrainingError(f"the update is not finite: lower the learning rate, {self.training.learning_rate:g}")
        unmoved = torch.equal(update, torch.zeros_like(update) if self.start is None else self.start)
        if unmoved and self.phase is None:
            raise TrainingError("training has not moved the update at all: no step had a gradient")
