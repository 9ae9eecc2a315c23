"""Does the engine sample from the update that the trainer has now? Shown by what it computes, not by what it was told.

On the tokens of a probe three log-probabilities are compared: the engine's with the update that it was given, the
trainer's with its update as it is now, and the trainer's with what the engine would hold had the update not arrived
(the untrained model, or the update of the step before): the rivals.
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
        rival: which one the engine agrees with, if stale ("other": with none and not with the trainer either); which
            one cannot be told apart, if unprovable.
        error: root mean square of engine − trainer, nats a token.
        floor: the same where both have no update: what two engines differ by anyway.
        arrived: by rival, how far the engine has moved from it to the trainer: 0 not at all, 1 all the way.
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
        """What the metrics of a step record."""
        return {
            "freshness": self.verdict,
            "freshness_error": self.error,
            "freshness_floor": self.floor,
            "divergence_ratio": self.divergence_ratio,
        }


def judge(engine: Logprobs, trainer: Logprobs, rivals: Mapping[str, Logprobs], floor: float) -> Freshness:
    """The verdict on one probe.

    With noise of root mean square `floor`, a fresh engine's projection on the line from a rival to the trainer is 1 ±
    floor/s, a stale one's 0 ± floor/s, where s is the distance between the two. Rivals nearer than four floors are left
    undecided, so that the two cannot meet in the middle even if all noise points the wrong way.

    Args:
        engine: (N,) log-probabilities of the probe's tokens, nats.
        trainer: (N,) with the update as it is now.
        rivals: (N,) each; "base" is among them.
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
    """KL(trainer ‖ sampler) / KL(trainer ‖ base) from tokens that the base drew; see `importance.kl_from_trainer`."""
    weight = np.exp(trainer - base)

    def divergence(other: Logprobs) -> float:
        d = other - trainer
        return float(np.mean(weight * (np.expm1(d) - d)))

    whole = divergence(base)
    return divergence(engine) / whole if whole > 0 else None


def _rms(difference: Logprobs) -> float:
    return float(np.sqrt(np.mean(difference**2)))


def _share(engine: Logprobs, trainer: Logprobs, rival: Logprobs) -> float:
    """Projection of the engine on the line from the rival, 0, to the trainer, 1."""
    line = trainer - rival
    return float((engine - rival) @ line / (line @ line))
