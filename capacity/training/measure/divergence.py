"""Measures the KL divergence of an adapted model from its base, on the model's own completions."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from capacity.forward.model import Forward
from capacity.forward.rollout import Rollout
from capacity.sampling.finite import check_logits

_LOGITS = 32 * 1024**2  # at most so many at a time: 128 MB in fp32, for each of the two models


class KlMeter:
    """A KL meter accumulates KL(adapted ‖ base) over completion tokens (Shenfeld et al., arXiv 2509.04259).

    The divergence at each token is exact: it is a sum over the vocabulary.

    Args:
        model: the model with the adapter switched on.
        switched_off: a function that returns a context in which the model is its base.
    """

    def __init__(self, model: nn.Module, switched_off: Callable[[], AbstractContextManager[object]]) -> None:
        self.model = model
        self.forward = Forward(model)
        self.switched_off = switched_off
        self.nats = 0.0
        self.tokens = 0

    @torch.no_grad()
    def add(self, rollout: Rollout) -> None:
        """Adds the completions of a rollout, a few rows at a time.

        Raises:
            TrainingError: if the logits of either model are not finite.
        """
        vocabulary = int(self.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
        rows = max(1, _LOGITS // (rollout.completion_ids.shape[1] * vocabulary))
        for start in range(0, len(rollout.completion_ids), rows):
            part = rollout.rows(start, start + rows)
            adapted = self.forward(part)
            with self.switched_off():
                base = self.forward(part)
            check_logits(adapted.logits)
            check_logits(base.logits)
            self.nats += adapted.mean_kl(base) * adapted.tokens
            self.tokens += adapted.tokens

    @property
    def bits_per_token(self) -> float:
        """Returns the mean KL divergence over all completion tokens, in bits."""
        return self.nats / max(self.tokens, 1) / math.log(2)
