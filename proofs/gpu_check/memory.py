"""The peak of a run's memory lies near the plan, and never above it."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from capacity.models.device_memory import gpu_memory
from capacity.plan.memory import HEADROOM, gigabytes, rows_that_fit, run_memory
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.loop import Alone, train
from proofs.gpu_check.clock import measured_peak
from proofs.gpu_check.finding import Finding, tried, within
from proofs.gpu_check.trainees import trainee
from proofs.gpu_check.world import Sizes

PART = "memory"


def near_the_plan(
    specs: Sequence[tuple[str, RunSpec]], loaded: Bases, sizes: Sizes, low: float = 0.5, high: float = HEADROOM
) -> Iterator[Finding]:
    """Trains runs and holds the peak of their memory against the plan without its headroom."""
    for what, spec in specs:
        yield from tried(PART, what, partial(_held, what, spec, loaded, sizes, low, high))


def _held(what: str, spec: RunSpec, loaded: Bases, sizes: Sizes, low: float, high: float) -> list[Finding]:
    base = loaded.of(spec.model)
    gpu = gpu_memory(torch.device(loaded.device))
    rows = sizes.rows if gpu is None else rows_that_fit(spec, gpu, sizes.prompt_tokens)
    plan = run_memory(spec, sampled=sizes.rows, rows=rows, prompt_tokens=sizes.prompt_tokens)
    model: Any = base.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with measured_peak(loaded.device) as peak:
        train([trainee(spec, base, loaded)], Alone())
    there = peak.bytes if loaded.device == "cuda" else peak.bytes + weights  # which the host has made before
    planned = plan.peak / HEADROOM
    name = f"{what}: peak ÷ plan of {gigabytes(int(planned))}"
    return [within(PART, name, there / planned, low, high)]
