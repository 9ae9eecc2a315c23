"""Samples from the trainer's own model, which is always up to date and has the trainer's log-probabilities."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from capacity.adapters.model import AdaptedModel
from capacity.models.ends import end_tokens
from capacity.sampling.evaluate import batch_size
from capacity.sampling.memory_slices import joined
from capacity.sampling.rollout import Rollout, pad_left, sample


class TransformersSampler:
    """A `capacity.sampling.sampler.Sampler` that draws token j of sequence i with uniform (i, j) of `rng`."""

    engine_name: str | None = None

    def __init__(self, adapted: AdaptedModel, tokenizer: Any) -> None:
        self.adapted = adapted
        self.ends, self.pad = end_tokens(adapted.bare, tokenizer).ids, tokenizer.pad_token_id
        self.device = next(adapted.model.parameters()).device

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
        prompt_ids, prompt_mask = pad_left(prompts, self.pad)
        uniforms = torch.from_numpy(rng.random((len(prompts), max_new_tokens)))
        size = batch_size(self.adapted.bare, self.device, prompt_ids.shape[1] + max_new_tokens)
        with self.adapted.switched_off() if base else nullcontext():
            parts = [
                sample(
                    self.adapted.model,
                    prompt_ids[start : start + size].to(self.device),
                    prompt_mask[start : start + size].to(self.device),
                    uniforms[start : start + size],
                    temperature=temperature,
                    ends=self.ends,
                    pad=self.pad,
                )
                for start in range(0, len(prompts), size)
            ]
        return joined(parts, self.pad)

    def close(self) -> None:
        """Does nothing: this sampler holds nothing of its own."""
