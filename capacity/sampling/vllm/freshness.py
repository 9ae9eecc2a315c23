"""Judges whether an engine samples from the update that the trainer has now, by what it computes.

On the tokens of a probe, log-probabilities are compared. They are the engine's with the update that it was given, the
trainer's with its present update, and those of the rivals. A rival is what the engine would hold if the update had not
arrived: the untrained model, or the update of the step before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Logprobs = npt.NDArray[np.float64]

_MARGIN = 4.0  # a rival is told apart if it differs from the trainer by so many noise floors
_SMALLEST_FLOOR = 1e-7  # nats; fp32 log-probabilities of two engines agree by chance no better


@dataclass(frozen=True)
class Freshness:
    """The verdict of one synchronisation.

    Attributes:
        verdict: "fresh"; "stale"; or "unprovable" if some rival is too near the trainer to be told apart from it.
        rival: if stale, the rival that the engine agrees with, or "other" if it agrees with none and not with the
            trainer either. If unprovable, the rival that cannot be told apart.
        error: root mean square of engine − trainer, nats a token.
        floor: the same where both have no update: what two engines differ by anyway.
        arrived: how far the engine has moved from each rival to the trainer: 0 not at all, 1 all the way.
        divergence_ratio: KL(trainer ‖ sampler) / KL(trainer ‖ base) on the probe; 1 if the update never arrived.
            None while the trainer is at the base.
    """

    verdict: Literal["fresh", "stale", "unprovable"]
    rival: str | None
    error: float
    floor: float
    arrived: dict[str, float]
    divergence_ratio: float | None

    def to_json(self) -> dict[str, Any]:
        """The part of the verdict that the metrics of a step record."""
        return {
            "freshness": self.verdict,
            "freshness_error": self.error,
            "freshness_floor": self.floor,
            "divergence_ratio": self.divergence_ratio,
        }


def judge(engine: Logprobs, trainer: Logprobs, rivals: Mapping[str, Logprobs], floor: float) -> Freshness:
    """The verdict on one probe.

    The noise has the root mean square `floor`, and s is the distance from a rival to the trainer. A fresh engine's
    projection on the line between the two is 1 ± floor/s, and a stale one's is 0 ± floor/s. Rivals nearer than four
    floors are left undecided, so that the two cannot meet in the middle even if all noise points the wrong way.

    Args:
        engine: the engine's log-probabilities of the probe's tokens, (N,), nats.
        trainer: the trainer's, with the update as it is now, (N,).
        rivals: those of each rival, (N,); "base" is among them.
        floor: root mean square of engine − trainer without any update.
    """
    floor = max(floor, _SMALLEST_FLOOR)
    error = _rms(engine - trainer)
    distances = {name: _rms(trainer - rival) for name, rival in rivals.items()}
    told_apart = {name: s for name, s in distances.items() if s > _MARGIN * floor}
    arrived = {name: _share(engine, trainer, rivals[name]) for name in told_apart}
    ratio = divergence_ratio(engine, trainer, rivals["base"]) if distances["base"] > 0 else None
    held = min((name for name in told_apart if arrived[name] < 0.5), key=lambda n: abs(arrived[n]), default=None)
    if held is None and error > max(_MARGIN * floor, 0.5 * distances["base"]):
        held = "other"
    if held is not None:
        return Freshness("stale", held, error, floor, arrived, ratio)
    near = min((name for name in rivals if name not in told_apart), key=lambda n: distances[n], default=None)
    return Freshness("fresh" if near is None else "unprovable", near, error, floor, arrived, ratio)


def divergence_ratio(engine: Logprobs, trainer: Logprobs, base: Logprobs) -> float | None:
    """The ratio KL(trainer ‖ sampler) / KL(trainer ‖ base), estimated from tokens that the base drew.

    The estimate of each KL is that of `capacity.training.importance.kl_from_trainer`. None if the second is zero.
    """
    weight = np.exp(trainer - base)

    def divergence(other: Logprobs) -> float:
        d = other - trainer
        return float(np.mean(weight * (np.expm1(d) - d)))

    whole = divergence(base)
    return divergence(engine) / whole if whole > 0 else None


def _rms(difference: Logprobs) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def _share(engine: Logprobs, trainer: Logprobs, rival: Logprobs) -> float:
    """Where the engine stands on the line from the rival, at 0, to the trainer, at 1, by projection."""
    line = trainer - rival
    return float((engine - rival) @ line / (line @ line))
