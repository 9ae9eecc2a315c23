"""Weights samples that another engine drew, and measures how far that engine is from the trainer.

Two engines that hold the same weights do not compute the same probabilities. So the samples of one are slightly off
policy for the other. In shapes, B counts sequences and T completion tokens. Log-probabilities are those of the drawn
tokens, in nats.
"""

import torch
from torch import Tensor

from capacity.spec.parts import Correction


def importance_weights(
    trainer: Tensor, sampler: Tensor, mask: Tensor, correction: Correction, cap: float, floor: float = 0.0
) -> Tensor:
    """Returns the weights of each token's loss, of shape (B, T), without gradient.

    A weight comes from the ratio p_trainer / p_sampler. `correction` joins a level and a kind, such as
    "token-truncate":
        "token": the ratio is that of one token. It has low variance, but is biased: it ignores that the sampler drew
            the earlier tokens too.
        "sequence": the ratio is the product over all tokens of a sequence. It is unbiased before it is bounded.
        "truncate": ratios are clipped to [floor, cap] (Yao et al., "Your efficient RL framework secretly brings you
            off-policy RL training", 2025).
        "mask": ratios outside the bounds become 0 (IcePop, Ling team, 2025).

    Weights are 1 if nothing is corrected, and where the mask is 0.

    Args:
        trainer: log-probabilities (B, T) under the trained model, at the temperature of sampling.
        sampler: log-probabilities (B, T) that the engine reported when it drew the tokens.
        mask: 1 on completion tokens, of shape (B, T).
        correction: the level and the kind of correction, or "none".
        cap: the largest ratio, above 1.
        floor: the smallest ratio, below 1.
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
    """Returns the effective sample size as a share of the tokens, (Σw)² / (n Σw²).

    It is 1 for equal weights, and 0 if all weights are 0. `weights` and `mask` have shape (B, T).
    """
    w = weights[mask.bool()].double()
    square = float((w * w).sum())
    return float(w.sum()) ** 2 / (len(w) * square) if square > 0 else 0.0


def kl_from_trainer(trainer: Tensor, other: Tensor, sampler: Tensor, mask: Tensor) -> Tensor:
    """Estimates the mean KL(trainer ‖ other) in nats per token, from tokens that `sampler` drew.

    The estimate is the mean of w (ln p/q + q/p − 1). Here p is the trainer, q the other and w = p / sampler. Each term
    is 0 or more. The mean of the terms is the divergence, since w corrects for who drew the tokens and E_p[q/p] = 1.

    If `other` is the sampler itself, this is KL(trainer ‖ sampler). If it is the untrained model, it is KL(trainer ‖
    base). If the sampler still holds the untrained model, the two are equal.

    Args:
        trainer, other, sampler: log-probabilities of the drawn tokens, each of shape (B, T).
        mask: 1 on completion tokens, of shape (B, T).
    """
    d = other - trainer
    terms = (trainer - sampler).exp() * (d.expm1() - d)
    return (terms * mask).sum() / mask.sum().clamp(min=1)
