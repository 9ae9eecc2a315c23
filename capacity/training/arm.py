"""Defines what all methods share: a step takes prompts, makes sequences of them, and minimises a loss.

Each method decides where its sequences come from and which loss they get. See `sft`, `rft` and `grpo`.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.model import AdaptedModel
from capacity.errors import TrainingError
from capacity.forward.model import Forward
from capacity.forward.predictions import Predictions
from capacity.forward.rollout import Rollout, pad_left, pad_right
from capacity.models.ends import end_tokens
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape
from capacity.sampling.memory_slices import RowsAtOnce, slice_sizes, summed
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.sampler import Request, Sampler
from capacity.spec.parts import TrainingSpec
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Task
from capacity.training.base_lengths import BaseLengths
from capacity.training.batch import Batch, Cost, Recorder
from capacity.training.batches import encode_completions, encode_prompts
from capacity.training.processes import Processes

Value = TypeVar("Value")
# A function that makes something of samples yields what it asks for, and is sent what was drawn.
Asking = Generator[Request, Rollout, Value]


@dataclass(frozen=True)
class _Seen:
    """Holds the measurements of the pass of one slice.

    Attributes:
        logprobs: the log-probabilities (B, T) of the objective, in nats.
        tokens: the number of completion tokens of the slice.
        entropy: the mean entropy over the tokens, in nats.
        code_length: the code length of the tokens under the model, in bits.
        kl_to_base: the mean divergence over the tokens, in nats; None if the base made no predictions.
        base_code_length: the code length under the base, in bits; None if it was not measured.
    """

    logprobs: Tensor
    tokens: int
    entropy: float
    code_length: float
    kl_to_base: float | None
    base_code_length: float | None


def _weights(model: str, adapted: AdaptedModel) -> int:
    """The number of the model's weights. A quantised one stores several of them in one number."""
    if parse_model(model).quantised:
        return model_shape(model)[1].parameters
    return sum(p.numel() for p in adapted.bare.parameters())


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
        base_lengths: code lengths under the base that earlier runs have computed; none if None.
    """

    trl_trainer: Literal["sft", "grpo"]  # which of TRL's trainers it goes with
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
        base_lengths: BaseLengths | None = None,
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
        self.parameters = _weights(spec.model, adapted)
        self.at_once = RowsAtOnce(adapted, spec.model)
        self.forward = Forward(adapted.model)
        self.device = next(adapted.model.parameters()).device
        self.sampler: Sampler = sampler or TransformersSampler(adapted, tokenizer)
        self.sampling: dict[str, Any] = {}
        self.base_lengths = base_lengths or BaseLengths()
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

    def streams(self) -> dict[str, np.random.Generator]:
        """Returns every random generator of this arm by its name. A step draws from nothing else."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.random.Generator)}

    @property
    def prompts_per_step(self) -> int:
        """Returns the number of different prompts that a step draws."""
        return self.training.prompts_per_step

    @property
    def sequences_per_prompt(self) -> int:
        """Returns how many times in a row each prompt occurs in a step's items."""
        return self.training.samples_per_prompt

    def gather(self, items: Sequence[Item]) -> Asking[Batch]:
        """Makes the sequences of one step. `items` holds each prompt `sequences_per_prompt` times in a row.

        It yields requests for samples, and is sent what was drawn.
        """
        raise NotImplementedError

    def batch(self, items: Sequence[Item]) -> Batch:
        """Returns the sequences of one step, sampled by the sampler of this arm."""
        return self.answered(self.gather(items))

    def answered(self, asking: Asking[Value]) -> Value:
        """Returns what a function that asks for samples makes of them, sampled by the sampler of this arm."""
        answer: Rollout | None = None
        while True:
            try:
                request = asking.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                value: Value = end.value
                return value
            answer = self.drawn(request)

    def drawn(self, request: Request) -> Rollout:
        """Draws what a request asks for. The sampler first follows the update, unless the base is sampled."""
        if not request.base:
            self.sampling = self.sampler.follow(request.prompts, f"step {len(self.recorder.steps)}")
        return self.sampler.sample(
            request.prompts,
            request.rng,
            temperature=request.temperature,
            max_new_tokens=request.longest,
            base=request.base,
        )

    def objective(self, predictions: Predictions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss of a step, or of some of its rows, and the log-probabilities (B, T) that it depends on.

        Args:
            predictions: what the model predicts of the completion tokens.
            batch: the sequences.
        """
        raise NotImplementedError

    def share(self, part: Batch, whole: Batch) -> float:
        """Returns the factor of a slice's loss with which the losses of all slices add up to the step's."""
        raise NotImplementedError

    def with_gradient(self, batch: Batch) -> Batch:
        """Returns the sequences of a step whose gradient is not exactly zero."""
        return batch

    @property
    def measures_base(self) -> bool:
        """Tells whether the next step makes a pass of the base: for the KL divergence from it, and its code length."""
        raise NotImplementedError

    def base_code_length(self, part: Batch) -> float | None:  # noqa: ARG002
        """Returns the code length of some rows under the base, in bits, at steps without a pass of the base.

        None says that such steps do without it.
        """
        return None

    def summary(self, batch: Batch) -> dict[str, Any]:  # noqa: ARG002
        """Returns the arm's own metrics of the sequences of a step."""
        return {}

    def measured(self, logprobs: Tensor, batch: Batch) -> dict[str, Any]:  # noqa: ARG002
        """Returns the arm's own metrics of what went through the model.

        Args:
            logprobs: the log-probabilities of its objective, (B, T), for the sequences that went through the model.
            batch: these sequences.
        """
        return {}

    def sampled(
        self, items: Sequence[Item], temperature: float, rng: np.random.Generator, *, base: bool = False
    ) -> Asking[tuple[Rollout, Tensor]]:
        """Asks for one sample of the current model for each of `items`, grades the samples, and counts the cost.

        If `base` is True, it asks for samples of the untrained model.

        Returns:
            The samples, and their rewards (0 or 1) of shape (B,).
        """
        prompts = encode_prompts(self.tokenizer, items)
        rollout = yield Request(prompts, rng, temperature, self.training.max_new_tokens, base)
        texts = self.ends.texts(self.tokenizer, rollout.completions())
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
        return Rollout(prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape)).to(self.device)

    def demonstrated(self, items: Sequence[Item], count: int, rng: np.random.Generator) -> list[list[int]]:
        """Returns `count` demonstrations of each item as token ids."""
        texts = [text for item in items for text in self.task.demonstrations(item, count, rng)]
        return encode_completions(self.tokenizer, texts, self.ends, items[0])

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
        self,
        rollout: Rollout,
        rewards: Tensor | None = None,
        advantages: Tensor | None = None,
        base_bits: Tensor | None = None,
        **extra: Any,
    ) -> Batch:
        """Makes the batch of a step: drops the sequences that matching leaves out, and counts the cost."""
        whole = Batch(rollout, extra, rewards, advantages, base_bits)
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
        it. Sequences whose gradient is zero do not go through the model. Where the base is measured, all sequences go
        through both models once more, without a gradient. So the update is the same whether it is measured or not.

        Raises:
            TrainingError: if the loss is not finite.
        """
        processes, base = Processes.current(), self.measures_base
        passed = self.with_gradient(batch)
        apart = base and passed is not batch
        # The base comes before the pass with a gradient: to switch off an update of the weights changes them in place.
        whole = self._measured(batch) if apart else []
        parts = self._slices(passed)
        seen: list[_Seen] = []

        def share(part: Batch) -> Tensor:
            base_bits = None if base else self.base_code_length(part)
            loss, looked_at = self.look(part, *self._predictions(part, base and not apart), base_bits)
            seen.append(looked_at)
            return loss if part is batch else loss * self.share(part, batch)

        if processes.count == len(parts) == 1:
            loss = share(parts[0])
        else:
            add_up = processes.add_up if processes.count > 1 else None
            loss = summed([partial(share, p) for p in parts], list(self.adapted.trained.values()), add_up)
        found = [s for own in processes.gathered(seen) for s in own]
        self.record(loss, batch, passed, found, whole if apart else found)
        return loss

    @torch.no_grad()
    def _measured(self, batch: Batch) -> list[_Seen]:
        """Returns the measurements of all sequences of a step under the model and its base."""
        own = [self.look(part, *self._predictions(part, True))[1] for part in self._slices(batch)]
        return [seen for found in Processes.current().gathered(own) for seen in found]

    def _slices(self, batch: Batch) -> list[Batch]:
        """Returns this process's rows of some sequences, in slices that go through the model one after the other."""
        first, last = Processes.current().own(batch.sequences)
        sizes = self._slice_sizes(batch, last - first)
        ends = [first + end for end in accumulate(sizes)]
        return [batch.rows(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def _slice_sizes(self, batch: Batch, rows: int) -> list[int]:
        """Returns the sizes of the slices of some rows. A slice holds whole groups if one fits."""
        if not rows:
            return []
        at_once, k = self.at_once(batch.rollout), self.sequences_per_prompt
        if at_once < k or rows % k:
            return slice_sizes(rows, at_once)
        return [k * groups for groups in slice_sizes(rows // k, at_once // k)]

    def _predictions(self, part: Batch, base: bool) -> tuple[Predictions, Predictions | None]:
        """Returns what the model predicts of some rows, and what its base predicts, if that is asked for."""
        rollout, of_base = part.rollout, None
        if base:
            of_base = self.by_base(rollout)
        return self.forward(rollout), of_base

    @torch.no_grad()
    def by_base(self, rollout: Rollout) -> Predictions:
        """Returns what the base predicts of some sequences."""
        with self.adapted.switched_off():
            return self.forward(rollout)

    def look(
        self, part: Batch, predictions: Predictions, base: Predictions | None, base_bits: float | None = None
    ) -> tuple[Tensor, "_Seen"]:
        """Returns the loss of some rows by themselves, and the measurements of their pass.

        Args:
            part: the rows.
            predictions: what the model predicts of them.
            base: what its base predicts; None if it has made no pass.
            base_bits: their code length under the base in that case, if it is known.
        """
        loss, own = self.objective(predictions, part)
        with torch.no_grad():
            looked_at = _Seen(
                own.detach().cpu(),
                predictions.tokens,
                predictions.mean_entropy() if part.rollout.entropies is None else 0.0,
                predictions.code_length_bits() if part.rollout.plain_logprobs is None else 0.0,
                None if base is None else predictions.mean_kl(base),
                base_bits if base is None else base.code_length_bits(),
            )
        return loss, looked_at

    def record(
        self, loss: Tensor, batch: Batch, passed: Batch, seen: Sequence["_Seen"], whole: Sequence["_Seen"]
    ) -> None:
        """Records the metrics of a step: sums over its slices, or means weighted by the tokens of the slices.

        Args:
            loss: the loss of the step.
            batch: the sequences of the step.
            passed: those that went through the model with a gradient.
            seen: what was measured of these.
            whole: what was measured of all sequences, if the base was measured on sequences without a gradient; else
                the same as `seen`.

        Raises:
            TrainingError: if the loss is not finite.
        """
        step, value = len(self.recorder.steps), float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step}: lower the learning rate, now {self.training.learning_rate:g}"
            )
        row = {
            "step": step,
            "loss": value,
            "mean_length": float(batch.rollout.completion_mask.sum(-1).float().mean()),
            **_measurements(batch.rollout, whole),
            "trained_tokens": batch.tokens,
            "passed_tokens": passed.tokens,
            **batch.extra,
            **self.summary(batch),
            **(self.measured(torch.cat([s.logprobs for s in seen]).to(self.device), passed) if seen else {}),
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


def _measurements(rollout: Rollout, seen: Sequence[_Seen]) -> dict[str, float]:
    """Returns entropy, code lengths and the divergence from the base, of the sampler where it has measured them."""
    tokens = int(rollout.completion_mask.sum())
    if rollout.entropies is None or rollout.plain_logprobs is None:
        entropy = sum(s.tokens * s.entropy for s in seen) / tokens
        code_length = sum(s.code_length for s in seen)
    else:
        entropy = float(rollout.entropies.sum()) / tokens
        code_length = float(-rollout.plain_logprobs.double().sum()) / math.log(2)
    found = {"entropy_bits": entropy / math.log(2), "code_length_bits": code_length}
    divergences = [(s.tokens, s.kl_to_base) for s in seen if s.kl_to_base is not None]
    if seen and len(divergences) == len(seen):
        found["kl_to_base_bits"] = sum(n * kl for n, kl in divergences) / tokens / math.log(2)
    base = [s.base_code_length for s in seen if s.base_code_length is not None]
    if seen and len(base) == len(seen):
        found["base_code_length_bits"] = sum(base)
    return found
