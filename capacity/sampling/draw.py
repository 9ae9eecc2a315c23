"""Draws next tokens from logits, with the randomness passed in.

Shapes: B sequences, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """One token for each of B sequences, with what its draw already tells.

    Attributes:
        tokens: of shape (B,).
        logprobs: log-probabilities in nats under the distribution that the tokens were drawn from, (B,). They are 0 at
            temperature 0, where that distribution is a point.
        plain_logprobs: log-probabilities in nats at temperature 1, (B,).
        entropies: entropies in nats at temperature 1, (B,).
    """

    tokens: Tensor
    logprobs: Tensor
    plain_logprobs: Tensor
    entropies: Tensor


def draw(logits: Tensor, uniforms: Tensor, temperature: float | Tensor) -> Drawn:
    """Draws one token a row by inverse transform sampling. At temperature 0 it takes the likeliest.

    Args:
        logits: next-token logits, (B, V).
        uniforms: one number in [0, 1) a row, (B,), float64.
        temperature: 0 or above; one for all, or one a row, (B,).
    """
    plain = logits.log_softmax(-1)
    probabilities = plain.exp()
    entropies = -(probabilities * plain).sum(-1)
    if isinstance(temperature, Tensor):
        greedy = temperature == 0
        tempered = (logits / torch.where(greedy, 1.0, temperature)[:, None]).log_softmax(-1)
        tokens, logprobs = _drawn(tempered, uniforms)
        tokens, logprobs = torch.where(greedy, logits.argmax(-1), tokens), torch.where(greedy, 0.0, logprobs)
    elif temperature == 0:
        tokens, logprobs = logits.argmax(-1), torch.zeros_like(entropies)
    else:
        tempered = plain if temperature == 1.0 else (logits / temperature).log_softmax(-1)
        tokens, logprobs = _drawn(tempered, uniforms)
    return Drawn(tokens, logprobs, plain.gather(-1, tokens[:, None]).squeeze(-1), entropies)


def _drawn(logprobs: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row of a distribution (B, V) and its log-probability, (B,) each."""
    cumulative = logprobs.double().exp().cumsum(-1)
    # Rounding may leave the last entry below 1; scaling keeps every uniform inside.
    threshold = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logprobs.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)
