"""Refuses logits and log-probabilities that are not finite, from which an accuracy would read as 0 %."""

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from capacity.errors import TrainingError

_CAUSES = (
    "its weights hold values that are not finite, or fp16 overflows (load it with ?dtype=bf16 or ?dtype=fp32), or it "
    "was trained at too high a learning rate"
)


def check_logits(logits: Tensor) -> None:
    """Checks that the logits (…, V) of each position give a distribution: no NaN, no +∞, and not all of them −∞.

    A single −∞ is a token that cannot be drawn, and is allowed.

    Raises:
        TrainingError: if they do not; the message says of how many positions, and what may be the cause.
    """
    largest = logits.amax(-1).flatten()  # NaN if any of them is
    bad = int((~largest.isfinite()).sum())
    if bad:
        raise TrainingError(f"the model's logits are not finite at {bad} of {len(largest)} positions: {_CAUSES}")


def check_drawn(logprobs: Tensor) -> None:
    """Checks the log-probabilities of drawn tokens, of any shape. They are NaN where the logits give no distribution.

    Raises:
        TrainingError: as `check_logits`.
    """
    bad = int((~logprobs.isfinite()).sum())
    if bad:
        raise TrainingError(f"the model's logits are not finite at {bad} of {logprobs.numel()} positions: {_CAUSES}")


def check_logprobs(completions: Iterable[Sequence[float]]) -> None:
    """Checks the log-probabilities that another engine gives of the tokens that it drew.

    Raises:
        TrainingError: if one is not finite.
    """
    rows = list(completions)
    bad = sum(not all(map(math.isfinite, row)) for row in rows)
    if bad:
        raise TrainingError(f"the engine's log-probabilities are not finite in {bad} of {len(rows)} samples: {_CAUSES}")
