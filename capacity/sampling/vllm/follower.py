"""Draws samples from an engine that follows the trainer, and proves at every step that it does."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.files.merge import MergeTally, base_weights, merged_weights
from capacity.adapters.model import AdaptedModel
from capacity.errors import EngineError, TrainingError
from capacity.forward.model import padded_logits
from capacity.forward.rollout import Rollout, pad_left, pad_right
from capacity.models.ends import end_tokens
from capacity.plan.model_names import parse_model
from capacity.sampling import likelihood
from capacity.sampling.finite import check_logprobs
from capacity.sampling.vllm.engine import Engine, Request
from capacity.sampling.vllm.freshness import Freshness, Logprobs, judge
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.parts import RolloutSpec

_PROBE_PROMPTS, _PROBE_TOKENS = 8, 48
_PROBE_SEED = 0
_PROBE_CONTEXT = 2048  # of models that do not say how long theirs is
# Nats a token, root mean square. A rounding to bf16 makes a few hundredths, and another model of one family far more.
_OTHER_MODEL = 0.3
_SEEDS = 2**31  # vLLM takes seeds of a signed 64-bit integer, its GPU samplers only of 32


@dataclass(frozen=True)
class _Probe:
    """A few completions of the base, by which trainer and engine are compared.

    Attributes:
        rollout: the completions with their prompts.
        sequences: token ids of each prompt and its completion.
        base: the trainer's log-probabilities of the completions without any update.
        floor: root mean square of what trainer and engine differ by without any update.
    """

    rollout: Rollout
    sequences: list[list[int]]
    base: Logprobs
    floor: float


class EngineSampler:
    """A `capacity.sampling.sampler.Sampler` that draws from an engine.

    Args:
        adapted: the model with its update; it stays on its device.
        tokenizer: the model's tokenizer.
        engine: an engine that holds the same base.
        spec: how the engine follows.
        dtype: dtype of the engine's weights.
        folder: an existing, empty folder that the engine can read.
        base: name of the base.
    """

    def __init__(
        self,
        adapted: AdaptedModel,
        tokenizer: Any,
        engine: Engine,
        spec: RolloutSpec,
        *,
        dtype: str,
        folder: Path,
        base: str,
    ) -> None:
        self.adapted, self.engine, self.spec, self.dtype, self.base = adapted, engine, spec, dtype, base
        self.engine_name: str | None = f"{spec.engine} {engine.version}"
        self.ends, self.pad = end_tokens(adapted.bare, tokenizer).ids, tokenizer.pad_token_id
        self.device = next(adapted.model.parameters()).device
        swaps = spec.sync == "hot-swap" and bool(adapted.shapes)
        self.writer = LoraWriter(adapted, folder, dtype, base) if swaps else None
        self.adapter: str | None = None  # the name under which the engine has the update
        self._mark, self._updates = uuid4().hex[:12], 0
        self._probe: _Probe | None = None
        self._held: Tensor | None = None  # the update that the engine was given last
        self._previous: Logprobs | None = None  # what the trainer made of the probe with it
        self._report: dict[str, Any] = {}

    def follow(self, prompts: Sequence[Sequence[int]], where: str) -> dict[str, Any]:
        """Gives the engine the update, unless it has it already, and asks it for the probe.

        Raises:
            TrainingError: what the engine computes is not the trainer's update.
            EngineError: it is gone, refuses the update, or holds another model.
        """
        if self._probe is None:
            self._probe = self._make_probe(prompts)
            self._check_base(self._probe, where)
        if self.adapted.trained_parameters == 0:
            return {}
        vector = self.adapted.vector()
        if self._held is not None and torch.equal(vector, self._held):
            return self._report
        began = time.perf_counter()
        sent = self._swap() if self.writer is not None else self._push()
        seconds = time.perf_counter() - began
        found, trainer = self._prove(self._probe)
        self._check(found, where)
        self._held, self._previous = vector, trainer
        self._report = {**sent, "sync_seconds": round(seconds, 6), **found.to_json()}
        return self._report

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        rng: np.random.Generator,
        *,
        temperature: float,
        max_new_tokens: int,
        base: bool = False,
    ) -> Rollout:
        """Draws one completion of each prompt, each with a seed of its own from `rng`."""
        if base and self.writer is None and self._held is not None:
            self.engine.push(base_weights(self.adapted, self.dtype))
            self._held = None
        adapter = None if base else self.adapter
        seeds = rng.integers(_SEEDS, size=len(prompts))
        requests = [Request(ids, int(seed), adapter) for ids, seed in zip(prompts, seeds, strict=True)]
        rollout = self._drawn(requests, temperature=temperature, max_new_tokens=max_new_tokens)
        self.engine.rest()
        return rollout

    def close(self) -> None:
        """Ends the engine."""
        self.engine.close()

    def _drawn(self, requests: Sequence[Request], *, temperature: float, max_new_tokens: int) -> Rollout:
        """Draws completions by the engine and gives them as a rollout on the trainer's device."""
        found = self.engine.generate(requests, temperature=temperature, max_new_tokens=max_new_tokens, ends=self.ends)
        check_logprobs(c.logprobs for c in found)
        prompt_ids, prompt_mask = pad_left([r.prompt for r in requests], self.pad)
        ids, mask = pad_right([c.ids for c in found], self.pad)
        logprobs = torch.zeros(ids.shape)
        if temperature > 0:  # a greedy token is drawn from a point
            for row, completion in enumerate(found):
                logprobs[row, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
        return Rollout(*(t.to(self.device) for t in (prompt_ids, prompt_mask, ids, mask, logprobs)))

    def _swap(self) -> dict[str, Any]:
        """Loads the update as an adapter of a new name, then forgets the one before."""
        assert self.writer is not None
        name = f"update-{self._mark}-{self._updates}"  # on a server, other runs have names too, and so had earlier ones
        self._updates += 1
        folder, size = self.writer.write(name)
        self.engine.load(name, folder)
        old, self.adapter = self.adapter, name
        if old is not None:
            self.engine.unload(old)
        return {"sync_bytes": size}

    def _push(self) -> dict[str, Any]:
        """Merges the update in fp32 and sends all weights to the engine."""
        tally = MergeTally()
        self.engine.push(merged_weights(self.adapted, self.dtype, tally))
        return {"sync_bytes": tally.bytes, "realised_cosine": tally.cosine}

    def _make_probe(self, prompts: Sequence[Sequence[int]]) -> _Probe:
        """Draws completions of the base for some of the prompts, and measures how far trainer and engine are apart."""
        chosen = list(dict.fromkeys(tuple(ids) for ids in prompts))[:_PROBE_PROMPTS]
        requests = [Request(ids, _PROBE_SEED + i) for i, ids in enumerate(chosen)]
        context = getattr(self.adapted.bare.config, "max_position_embeddings", None) or _PROBE_CONTEXT
        room = context - max(map(len, chosen)) - 1  # the engine draws one token more where it only scores
        rollout = self._drawn(requests, temperature=1.0, max_new_tokens=max(1, min(_PROBE_TOKENS, room)))
        sequences = [
            [*ids, *row[mask.bool()].tolist()]
            for ids, row, mask in zip(chosen, rollout.completion_ids, rollout.completion_mask, strict=True)
        ]
        with self.adapted.switched_off():
            base = self._trainer(rollout)
        engine = self._engine(rollout, sequences, None)
        return _Probe(rollout, sequences, base, float(np.sqrt(np.mean((engine - base) ** 2))))

    def _check_base(self, probe: _Probe, where: str) -> None:
        """Checks that the engine holds the model of the trainer. A server holds whatever it was started with.

        Raises:
            EngineError: it holds another one.
        """
        if probe.floor > _OTHER_MODEL and parse_model(self.base).quantised is None:
            raise EngineError(
                f"{where}: the sampler holds another model than {self.base}: without any update its log-probabilities "
                f"differ by {probe.floor:.2g} nats a token: start the server with this model, and with "
                "--logprobs-mode processed_logprobs"
            )

    def _prove(self, probe: _Probe) -> tuple[Freshness, Logprobs]:
        trainer = self._trainer(probe.rollout)
        rivals = {"base": probe.base} | ({} if self._previous is None else {"previous": self._previous})
        engine = self._engine(probe.rollout, probe.sequences, self.adapter)
        return judge(engine, trainer, rivals, probe.floor), trainer

    def _check(self, found: Freshness, where: str) -> None:
        """Stops a run whose engine does not hold the update; where a merge may have rounded it away, only warns.

        Raises:
            TrainingError: the engine holds something else; says what.
        """
        if found.verdict != "stale":
            return
        holds = {
            "base": "still the untrained model's",
            "previous": "still those of the step before",
            "other": "neither the trainer's nor those of a step before",
        }[str(found.rival)]
        message = (
            f"{where}: the sampler has not received the update: its log-probabilities on the probe are {holds} "
            f"(error {found.error:.2g} nats a token, noise {found.floor:.2g})"
        )
        if self.writer is None and self.dtype != "fp32":
            warnings.warn(f"{message}; merging into {self.dtype} weights may have rounded it away", stacklevel=2)
            return
        raise TrainingError(message)

    @torch.no_grad()
    def _trainer(self, rollout: Rollout) -> Logprobs:
        """The trainer's log-probabilities of the probe's completion tokens, (N,), one sequence after the other."""
        logits = padded_logits(self.adapted.model, rollout).float()
        logprobs = likelihood.token_logprobs(logits, rollout.completion_ids)
        found: Logprobs = logprobs[rollout.completion_mask.bool()].double().cpu().numpy()
        return found

    def _engine(self, rollout: Rollout, sequences: list[list[int]], adapter: str | None) -> Logprobs:
        scored = self.engine.score([(ids, adapter) for ids in sequences])
        lengths = rollout.completion_mask.sum(-1).tolist()
        return np.concatenate([np.array(s[-n:]) for s, n in zip(scored, lengths, strict=True)])
