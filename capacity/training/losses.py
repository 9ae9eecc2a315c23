"""The losses of SFT and GRPO as pure functions of log-probabilities.

Shapes: B sequences, T completion tokens. Log-probabilities in nats.
"""

import torch
from torch import Tensor


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
