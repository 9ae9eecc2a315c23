"""Importance weights for samples that another engine drew, and how far that engine is from the trainer.

Two engines that hold the same weights do not compute the same probabilities, so samples of one are slightly off policy
for the other. Shapes: B sequences, T completion tokens. Log-probabilities in nats, of the drawn tokens.
"""

import torch
from torch import Tensor

from capacity.spec.parts import Correction


def importance_weights(
    trainer: Tensor, sampler: Tensor, mask: Tensor, correction: Correction, cap: float, floor: float = 0.0
) -> Tensor:
    """Weights of each token's loss, (B, T), without gradient; 1 where nothing is corrected, and where the mask is 0.

    The ratio is p_trainer / p_sampler of a token (token level: of low variance, but biased, since it ignores that
    earlier tokens were drawn by the sampler too) or of a whole sequence (the product of its tokens' ratios: unbiased
    before it is bounded). "truncate" bounds ratios to [floor, cap] (Yao et al., "Your efficient RL framework secretly
    brings you off-policy RL training", 2025); "mask" drops what lies outside (IcePop, Ling team, 2025).

    Args:
        trainer: (B, T) under the trained model, at the temperature of sampling.
        sampler: (B, T) as the engine drew them.
        mask: (B, T), 1 on completion tokens.
        correction: level and kind.
        cap: largest ratio, above 1.
        floor: smallest, below 1.
    """
    if correction == "none":
        return torch.ones_like(trainer)
    level, _, kind = correction.partition("-")
    difference = (trainer.detach() - sampler) * mask
    if level == "sequence":
        difference = difference.sum(-1, keepdim=True).expand_as(difference)
    ratio = difference.exp()
    bounded = ratio.clamp(floor, cap) if kind == "truncate" else ratio * ((ratio >= floor) & (ratio <= cap))
    return torch.where(mask.bool(), bounded, 1.0)


def effective_share(weights: Tensor, mask: Tensor) -> float:
    """Effective sample size over the number of tokens, (Σw)² / (n Σw²): 1 for equal weights; 0 if all are dropped."""
    w = weights[mask.bool()].double()
    square = float((w * w).sum())
    return float(w.sum()) ** 2 / (len(w) * square) if square > 0 else 0.0


def kl_from_trainer(trainer: Tensor, other: Tensor, sampler: Tensor, mask: Tensor) -> Tensor:
    """Estimate of the mean KL(trainer ‖ other) in nats a token, from tokens that `sampler` drew.

    The mean of w (ln p/q + q/p − 1) with p the trainer, q the other and w = p / sampler: each term is 0 or more, and
    its mean is the divergence, since w makes up for who drew and E_p[q/p] = 1. With `other` the sampler itself it is
    KL(trainer ‖ sampler); with the untrained model it is KL(trainer ‖ base). Both are the same function of the same
    tokens, so if the sampler still holds the untrained model they are equal.
    """
    d = other - trainer
    terms = (trainer - sampler).exp() * (d.expm1() - d)
    return (terms * mask).sum() / mask.sum().clamp(min=1)
