"""Samples from the trainer's own model, which is always up to date and has the trainer's log-probabilities."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capacity.adapters.lanes import pairs_of
from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import Rollout, pad_left
from capacity.models.device_memory import gpu_memory
from capacity.models.ends import end_tokens
from capacity.plan.memory import SAMPLED_AT_ONCE, sampled_at_once
from capacity.sampling.decoding.blocks import BlockDecoder, takes
from capacity.sampling.decoding.complete import complete
from capacity.sampling.decoding.decoder import Decoder
from capacity.sampling.decoding.general import GeneralDecoder
from capacity.sampling.memory_slices import joined
from capacity.spec.adapters import NoAdapter


class TransformersSampler:
    """A `capacity.sampling.sampler.Sampler` that draws token j of sequence i with uniform (i, j) of `rng`."""

    engine_name: str | None = None

    def __init__(self, adapted: AdaptedModel, tokenizer: Any) -> None:
        self.adapted = adapted
        self.ends, self.pad = end_tokens(adapted.bare, tokenizer).ids, tokenizer.pad_token_id
        self.fast = takes(adapted)

    def follow(self, prompts: Sequence[Sequence[int]], where: str) -> dict[str, Any]:  # noqa: ARG002
        """Does nothing: the trainer and the sampler are one model."""
        return {}

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        rng: np.random.Generator,
        *,
        temperature: float,
        max_new_tokens: int,
        base: bool = False,
    ) -> Rollout:
        """Draws one completion of each prompt, as many at once as fit."""
        uniforms = torch.from_numpy(rng.random((len(prompts), max_new_tokens)))
        ids, mask = pad_left(prompts, self.pad)
        parts = self.parts(ids, mask, uniforms, temperature=temperature, base=base)
        return joined(list(parts), self.pad)

    def parts(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        uniforms: Tensor,
        *,
        temperature: float | Tensor,
        base: bool = False,
    ) -> Iterator[Rollout]:
        """Yields the completions of as many prompts as fit at once, then those of the next ones.

        Args:
            prompt_ids, prompt_mask: the prompts, (B, P) each, padded left.
            uniforms: one number in [0, 1) for each token that may be drawn, (B, T), float64.
            temperature: 0 (greedy) or above; one for all, or one a row, (B,).
            base: draw from the untrained model.
        """
        model = self.adapted.model.eval()
        device = next(model.parameters()).device
        size = batch_size(self.adapted.bare, device, prompt_ids.shape[1] + uniforms.shape[1])
        with self.adapted.switched_off() if base else nullcontext():
            decoder: Decoder = (
                BlockDecoder(self.adapted.bare, [pairs_of(self.adapted)]) if self.fast else GeneralDecoder(model)
            )
            for start in range(0, len(prompt_ids), size):
                part = slice(start, start + size)
                yield complete(
                    decoder,
                    prompt_ids[part].to(device),
                    prompt_mask[part].to(device),
                    uniforms[part],
                    temperature=temperature[part].to(device) if isinstance(temperature, Tensor) else temperature,
                    ends=self.ends,
                    pad=self.pad,
                )

    def close(self) -> None:
        """Does nothing: this sampler holds nothing of its own."""


def unadapted(model: nn.Module) -> AdaptedModel:
    """A model as it is, whatever it has around its modules already, as one without an update."""
    return AdaptedModel(model, NoAdapter(), model)


def batch_size(model: nn.Module, device: torch.device, tokens: int) -> int:
    """How many sequences of so many tokens are sampled at once, by `capacity.plan.memory.sampled_at_once`."""
    config = getattr(model, "config", None)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    layers, hidden = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if config is None or not heads or not layers or not hidden:
        return SAMPLED_AT_ONCE
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    width = 2 * layers * heads * head_dim * next(model.parameters()).element_size()
    return sampled_at_once(width * tokens, gpu_memory(device))
