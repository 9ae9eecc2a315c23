"""What a model's logits say of tokens: log-probabilities, entropy, divergences, code lengths.

Shapes: B sequences, T completion tokens, V vocabulary. Log-probabilities in nats; bits only where a name says so.
"""

import math

from torch import Tensor


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """The log-probability of each token: logits (B, T, V), ids (B, T) → (B, T)."""
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def mean_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The mean entropy in nats of the next-token distributions at completion tokens."""
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return (entropy * mask).sum() / mask.sum().clamp(min=1)


def mean_kl(logits: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """The mean KL(softmax(logits) ‖ softmax(other)) in nats over the completion tokens, exact in the vocabulary."""
    logprobs, other_logprobs = logits.log_softmax(-1), other.log_softmax(-1)
    divergence = (logprobs.exp() * (logprobs - other_logprobs)).sum(-1)
    return (divergence * mask).sum() / mask.sum().clamp(min=1)


def mean_sampled_kl(sampler: Tensor, trainer: Tensor, mask: Tensor) -> Tensor:
    """An estimate of the mean KL(sampler ‖ trainer) in nats from the sampler's tokens.

    It is the mean of e^d − d − 1 with d = trainer − sampler, which is never negative and has a low variance (Schulman,
    "Approximating KL divergence", 2020).
    """
    d = trainer - sampler
    return (((d.expm1() - d) * mask).sum()) / mask.sum().clamp(min=1)


def code_length_bits(logprobs: Tensor, mask: Tensor) -> float:
    """The code length of all completion tokens of a batch in bits: the sum of −log₂ p."""
    return float(-(logprobs.double() * mask).sum()) / math.log(2)
