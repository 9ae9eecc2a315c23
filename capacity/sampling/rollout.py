"""Samples completions from a causal language model, with the randomness passed in.

Shapes: B sequences, P prompt tokens (padded left), T new tokens, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rollout:
    """Prompts with sampled completions.

    Attributes:
        prompt_ids, prompt_mask: (B, P), int64, padded left.
        completion_ids, completion_mask: (B, T), int64, padded right; the end-of-sequence token is part of it.
        sampler_logprobs: (B, T), log-probabilities in nats of the drawn tokens under the distribution that they were
            drawn from; 0 where the mask is 0.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    sampler_logprobs: Tensor


def pad_left(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """The ids and the mask, (B, P) each, of sequences that are padded on the left."""
    width = max(map(len, sequences))
    ids = [[pad] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def pad_right(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """The ids and the mask, (B, T) each, of sequences that are padded on the right."""
    width = max(map(len, sequences))
    ids = [list(s) + [pad] * (width - len(s)) for s in sequences]
    mask = [[1] * len(s) + [0] * (width - len(s)) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def positions(mask: Tensor) -> Tensor:
    """The position of every token among the unmasked ones of its row, (B, P)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverse transform sampling; at temperature 0 takes the likeliest.

    Args:
        logits: next-token logits, (B, V).
        uniforms: one number in [0, 1) a row, (B,), float64.
        temperature: 0 or above.

    Returns:
        The tokens (B,) and their log-probabilities (B,) in nats. At temperature 0 these are 0: the distribution is a
        point.
    """
    if temperature == 0:
        return logits.argmax(-1), torch.zeros(logits.shape[0], dtype=logits.dtype, device=logits.device)
    logprobs = (logits / temperature).log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    # Rounding may leave the last entry below 1; scaling keeps every uniform inside.
    threshold = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    ends: Collection[int],
    pad: int,
) -> Rollout:
    """Completes every prompt until a token of `ends` or for T tokens.

    Args:
        model: causal language model with a key-value cache.
        prompt_ids: token ids of the prompts, (B, P), padded left.
        prompt_mask: 1 where a prompt has a token, (B, P).
        uniforms: one number in [0, 1) a drawn token, (B, T), float64: the only randomness.
        temperature: 0 (greedy) or above.
        ends: the tokens that end a completion.
        pad: token that fills up after it.

    Returns:
        The rollout. Its T is the length of the longest completion.
    """
    device = prompt_ids.device
    mask = prompt_mask
    step_ids, step_positions = prompt_ids, positions(prompt_mask)
    alive = torch.ones(prompt_ids.shape[0], dtype=torch.bool, device=device)
    end_ids = torch.tensor(sorted(ends), device=device)
    cache = None
    ids: list[Tensor] = []
    masks: list[Tensor] = []
    logps: list[Tensor] = []
    for t in range(uniforms.shape[1]):
        out = model(
            input_ids=step_ids,
            attention_mask=mask,
            position_ids=step_positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        tokens, logprobs = draw(out.logits[:, -1].float(), uniforms[:, t].to(device), temperature)
        tokens = torch.where(alive, tokens, pad)
        ids.append(tokens)
        masks.append(alive.long())
        logps.append(logprobs * alive)
        alive = alive & ~torch.isin(tokens, end_ids)
        if not bool(alive.any()):
            break
        step_ids = tokens[:, None]
        step_positions = step_positions[:, -1:] + 1
        mask = torch.cat([mask, masks[-1][:, None]], dim=1)
    return Rollout(prompt_ids, prompt_mask, torch.stack(ids, 1), torch.stack(masks, 1), torch.stack(logps, 1))


def forward_logits(model: nn.Module, rollout: Rollout) -> Tensor:
    """The logits that predict the completion tokens, (B, T, V), from one forward pass over prompt and completion."""
    mask = torch.cat([rollout.prompt_mask, rollout.completion_mask], 1)
    width = rollout.completion_ids.shape[1]
    out = model(
        input_ids=torch.cat([rollout.prompt_ids, rollout.completion_ids], 1),
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
        logits_to_keep=width + 1,
    )
    logits: Tensor = out.logits[:, :-1]
    return logits
