"""Log-probabilities of tokens, and the divergence between a sampler and its trainer.

Shapes: B sequences, T completion tokens, V vocabulary. Log-probabilities in nats; bits only where a name says so.
"""

from torch import Tensor


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """The log-probability of each token: logits (B, T, V), ids (B, T) → (B, T)."""
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def mean_sampled_kl(sampler: Tensor, trainer: Tensor, mask: Tensor) -> Tensor:
    """An estimate of the mean KL(sampler ‖ trainer) in nats from the sampler's tokens.

    It is the mean of e^d − d − 1 with d = trainer − sampler. It is never negative and has a low variance (Schulman,
    "Approximating KL divergence", 2020).
    """
    d = trainer - sampler
    return (((d.expm1() - d) * mask).sum()) / mask.sum().clamp(min=1)
