"""Defines the losses of SFT and GRPO as pure functions of log-probabilities.

In shapes, B counts sequences and T completion tokens. Log-probabilities are in nats.
"""

import torch
from torch import Tensor


def sft_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of all completion tokens of the batch.

    Args:
        logprobs: log-probabilities (B, T) under the trained model.
        mask: 1 on completion tokens, of shape (B, T).
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
    """Returns the clipped surrogate loss of GRPO without its KL term (arXiv 2402.03300, equation 3).

    Each sequence is averaged over its own tokens, then sequences are averaged. TRL calls this loss type "grpo".

    Args:
        logprobs: log-probabilities (B, T) under the trained model.
        old_logprobs: log-probabilities (B, T) when the samples were drawn; `logprobs.detach()` on policy.
        advantages: the advantages of the sequences, of shape (B,).
        mask: 1 on completion tokens, of shape (B, T).
        epsilon: the clipping range of the ratio.
        weights: a weight for each token's term, of shape (B, T), for samples that another engine drew; 1 if None.
    """
    ratio = (logprobs - old_logprobs).exp()
    gain = advantages.unsqueeze(1)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    if weights is not None:
        surrogate = surrogate * weights
    return -((surrogate * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()
