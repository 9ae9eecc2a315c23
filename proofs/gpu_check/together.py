"""Runs that train together take less time each, and have the losses that they have alone."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

import torch

from capacity.adapters.kinds.low_rank import LowRankModel
from capacity.models.device_memory import gpu_memory
from capacity.plan.together import fitting
from capacity.spec.adapters import Adapter
from capacity.spec.methods import Method
from capacity.training.base import Bases
from capacity.training.batch import Cost, Recorder
from capacity.training.loop import Alone, train
from capacity.training.together import Together
from proofs.gpu_check.clock import Clocked
from proofs.gpu_check.finding import Finding, tried, within
from proofs.gpu_check.trainees import trainee
from proofs.gpu_check.world import Sizes, run_spec

PART = "together"


def in_common_passes(
    model: str, loaded: Bases, adapter: Adapter, sizes: Sizes, counts: Sequence[int], tolerance: float, slowest: float
) -> Iterator[Finding]:
    """Trains several runs together, and compares them with the first of them alone.

    Args:
        model: the name of the model.
        loaded: what has been loaded.
        adapter: the kind of update. Every run has its own random parts, by its seed.
        sizes: the sizes of each run.
        counts: how many runs train together.
        tolerance: how far the losses of sft may be from those alone, relative to them.
        slowest: how long a run and step may take among others, relative to alone.
    """
    for method in ("sft", "grpo"):
        yield from tried(
            PART, method, partial(_counted, method, model, loaded, adapter, sizes, counts, tolerance, slowest)
        )


def _counted(
    method: Method,
    model: str,
    loaded: Bases,
    adapter: Adapter,
    sizes: Sizes,
    counts: Sequence[int],
    tolerance: float,
    slowest: float,
) -> list[Finding]:
    alone, losses_alone = _trained(method, model, loaded, adapter, sizes, 1, together=False)
    found = [Finding(PART, f"{method}, alone", f"{alone:.3g} s a step", "", "measured")]
    fits = fitting(
        run_spec(model, method, adapter, sizes), gpu_memory(torch.device(loaded.device)), sizes.prompt_tokens
    )
    for count in counts:
        what = f"{method}, {count} together"
        if count > fits:
            found.append(Finding.not_run(PART, what, f"at most {fits} fit"))
            continue
        seconds, losses = _trained(method, model, loaded, adapter, sizes, count, together=True)
        found.append(
            within(PART, f"{what}: time of a run and step ÷ alone", seconds / count / alone, -math.inf, slowest)
        )
        # The samples of grpo may part after a rounding, so only its first step's losses would compare.
        if method == "sft":
            off = max(abs(a - b) / abs(b) for a, b in zip(losses, losses_alone, strict=True))
            found.append(within(PART, f"{what}: losses' distance from alone", off, -math.inf, tolerance))
    return found


def _trained(
    method: Method, model: str, loaded: Bases, adapter: Adapter, sizes: Sizes, count: int, *, together: bool
) -> tuple[float, list[float]]:
    """Returns the seconds of a step of all runs, and the losses of the first run."""
    base = loaded.of(model)
    recorders = [Recorder([], Cost()) for _ in range(count)]
    specs = [run_spec(model, method, adapter, sizes, seed) for seed in range(count)]
    trainees = [trainee(s, base, loaded, r) for s, r in zip(specs, recorders, strict=True)]
    models = [cast(LowRankModel, t.arm.adapted) for t in trainees]
    passes = Clocked(Together(base.model, base.tokenizer, models) if together else Alone(), loaded.device)
    train(trainees, passes)
    for each in trainees:
        if each.error is not None:
            raise each.error
    return passes.seconds(), [step.loss for step in recorders[0].steps]
