"""What all methods share: a step takes prompts, makes sequences of them, and minimises a loss.

Where the sequences come from and which loss they get is each method's own: `sft`, `rft`, `grpo`.
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
from capacity.sampling import likelihood
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
    """One step's sequences, or a slice of them. `extra`: what the source measured.

    `rewards` and `advantages`, (B,), only when the sequences are own samples.
    """

    rollout: Rollout
    extra: dict[str, Any]
    rewards: Tensor | None = None
    advantages: Tensor | None = None

    @property
    def sequences(self) -> int:
        """B."""
        return len(self.rollout.completion_ids)

    @property
    def tokens(self) -> int:
        """Of all completions."""
        return int(self.rollout.completion_mask.sum())

    def rows(self, start: int, stop: int) -> "Batch":
        """The sequences from `start` to before `stop`; the batch itself if that is all."""
        if (start, stop) == (0, self.sequences):
            return self
        rollout = Rollout(*(t[start:stop] for t in vars(self.rollout).values()))
        rewards, advantages = (t if t is None else t[start:stop] for t in (self.rewards, self.advantages))
        return Batch(rollout, self.extra, rewards, advantages)


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
    """What a run's arms record, one after the other: the metrics of each step, costs. `on_step` hears of each step."""

    steps: list[Step]
    cost: Cost
    on_step: OnStep | None = None


@dataclass(frozen=True)
class _Seen:
    """What one slice's pass shows: `logprobs` (B, T) of the objective, means over `tokens` in nats, sums in bits."""

    logprobs: Tensor
    tokens: int
    entropy: float
    kl_to_base: float
    code_length: float
    base_code_length: float


class Arm:
    """One method, or one phase of `sft+grpo`: device, metrics of each step, costs, the check of the loss.

    Args:
        adapted: the model with its update.
        tokenizer: of the model.
        task: prompts, demonstrations and grader.
        spec: the run.
        training: of this phase; the run's own if None.
        recorder: shared by the phases of a run.
        sampler: where samples come from, shared too; the trainer's own model if None.
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
        """The steps of this arm so far."""
        return self.recorder.steps[self.first_step :]

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

    def objective(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a step, or of a slice of its rows by itself, and the log-probabilities (B, T) that it is of."""
        raise NotImplementedError

    def share(self, part: Batch, whole: Batch) -> float:
        """What a slice's loss is multiplied by so that the slices' losses add up to the step's."""
        raise NotImplementedError

    def measured(self, logprobs: Tensor, batch: Batch) -> dict[str, Any]:  # noqa: ARG002
        """What this arm measures of a whole step, given the log-probabilities (B, T) of its objective."""
        return {}

    def sampled(
        self, items: Sequence[Item], temperature: float, rng: np.random.Generator, *, base: bool = False
    ) -> tuple[Rollout, Tensor]:
        """One sample of the model as it is for each of `items`, and its rewards (B,), 0 or 1. Counts the cost.

        With `base` the untrained model is sampled. What was measured of the sampler is in `sampling`.
        """
        prompts = encode_prompts(self.tokenizer, items)
        if not base:
            self.sampling = self.sampler.follow(prompts, f"step {len(self.recorder.steps)}")
        longest = self.training.max_new_tokens
        rollout = self.sampler.sample(prompts, rng, temperature=temperature, max_new_tokens=longest, base=base)
        texts = self.tokenizer.batch_decode(rollout.completion_ids, skip_special_tokens=True)
        rewards = [float(self.task.grade(item, text)) for item, text in zip(items, texts, strict=True)]
        tokens = int(rollout.completion_mask.sum())
        self.cost.sampled_sequences += len(items)
        self.cost.sampled_tokens += tokens
        self.cost.flops += 2 * self.parameters * (int(rollout.prompt_mask.sum()) + tokens)
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
        steps = len(self.steps) + 1
        left = per_step * steps - sum(step.trained_tokens or 0 for step in self.steps)
        ends = rollout.completion_mask.sum(1).view(-1, k).sum(1).cumsum(0)
        return max(1, int((ends <= left).sum())) * k

    def finish(
        self, rollout: Rollout, rewards: Tensor | None = None, advantages: Tensor | None = None, **extra: Any
    ) -> Batch:
        """The batch of a step: drops what matching leaves out, and counts the cost."""
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
        """The loss of one step; records its metrics, all of them from before the update.

        Where a step is too large for the device its rows go through the model in slices. The value and its gradient are
        those of the whole step up to the order of summation; the gradient is then known before `backward` asks for it.

        Raises:
            TrainingError: the loss is not finite.
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
        """The loss of some rows by themselves, and what is looked at beside it."""
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
        """Writes down the metrics of a step: sums over its slices, or means weighted by their tokens."""
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
