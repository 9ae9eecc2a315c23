"""Completions of a bare model by transformers' own forward pass, for tests of what other samplers draw."""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from capacity.forward.rollout import Rollout
from capacity.sampling.decoding.complete import complete
from capacity.sampling.decoding.general import GeneralDecoder


def sample(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    ends: Collection[int],
    pad: int,
) -> Rollout:
    """One completion of each prompt."""
    return complete(
        GeneralDecoder(model.eval()), prompt_ids, prompt_mask, uniforms, temperature=temperature, ends=ends, pad=pad
    )
