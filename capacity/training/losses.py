"""The losses of SFT and GRPO and what is measured beside them, as pure functions of log-probabilities.

Shapes: B sequences, T completion tokens, V vocabulary. Log-probabilities in nats; bits only where a name says so.
"""

import math

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token: logits (B, T, V), ids (B, T) → (B, T)."""
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def sft_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over all completion tokens of the batch.

    Args:
        logprobs: (B, T) under the trained model.
        mask: (B, T), 1 on completion tokens.
    """
    return -(logprobs * mask).sum() / mask.sum().clamp(min=1)


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    epsilon: float,
    weights: Tensor | None = None,
) -> Tensor:
    """The clipped surrogate of GRPO (2402.03300, equation 3, without its KL term), loss type "grpo".

    Each sequence is averaged over its own tokens, then sequences are averaged.

    Args:
        logprobs: (B, T) under the trained model.
        old_logprobs: (B, T) when the samples were drawn; `logprobs.detach()` on policy.
        advantages: (B,).
        mask: (B, T), 1 on completion tokens.
        epsilon: clipping range of the ratio.
        weights: (B, T), of each token's term, for samples that another engine drew; 1 if None.
    """
    ratio = (logprobs - old_logprobs).exp()
    gain = advantages.unsqueeze(1)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    if weights is not None:
        surrogate = surrogate * weights
    return -((surrogate * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def mean_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean entropy in nats of the next-token distributions at completion tokens."""
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return (entropy * mask).sum() / mask.sum().clamp(min=1)


def mean_kl(logits: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Mean KL(softmax(logits) ‖ softmax(other)) in nats over the completion tokens, exact in the vocabulary."""
    logprobs, other_logprobs = logits.log_softmax(-1), other.log_softmax(-1)
    divergence = (logprobs.exp() * (logprobs - other_logprobs)).sum(-1)
    return (divergence * mask).sum() / mask.sum().clamp(min=1)


def mean_sampled_kl(sampler: Tensor, trainer: Tensor, mask: Tensor) -> Tensor:
    """Estimate of the mean KL(sampler ‖ trainer) in nats from the sampler's tokens: e^d − d − 1, d = trainer − sampler.

    Never negative and of low variance (Schulman, "Approximating KL divergence", 2020).
    """
    d = trainer - sampler
    return (((d.expm1() - d) * mask).sum()) / mask.sum().clamp(min=1)


def code_length_bits(logprobs: Tensor, mask: Tensor) -> float:
    """Σ −log₂ p of all completion tokens of the batch."""
    return float(-(logprobs.double() * mask).sum()) / math.log(2)


def kt_code_bits(hits: int, trials: int) -> float:
    """Bits that the Krichevsky–Trofimov estimator spends on one sequence of `trials` rewards with `hits` ones."""
    log_p = math.lgamma(hits + 0.5) + math.lgamma(trials - hits + 0.5) - math.lgamma(trials + 1.0) - math.log(math.pi)
    return -log_p / math.log(2)
