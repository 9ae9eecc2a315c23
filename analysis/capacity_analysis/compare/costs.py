"""What the runs of a cell used, on average."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from capacity.runs.cell import cells
from capacity.runs.study import Run


@dataclass(frozen=True)
class Costs:
    """Means over the runs of a cell; what was not recorded counts as 0.

    Attributes:
        prompts, sequences: trained on.
        sampled_tokens, trained_tokens: of the training.
        flops: of sampling and training.
        preparation_flops: of gradients before the training, which deal entries and choose projections.
        wall_seconds: of a run.
        header_bytes: of the update's file; the largest.
    """

    prompts: float
    sequences: float
    sampled_tokens: float
    trained_tokens: float
    flops: float
    preparation_flops: float
    wall_seconds: float
    header_bytes: int


def costs_of(runs: Iterable[Run]) -> Mapping[str, Costs]:
    """The costs of every cell, by its identity."""
    found = cells(runs, lambda run: run.cell)
    return {cell.identity: _costs(own) for cell, own in found.items()}


def _costs(runs: list[Run]) -> Costs:
    def average(name: str) -> float:
        return fmean(getattr(run.result, name) or 0 for run in runs)

    return Costs(
        prompts=average("prompts"),
        sequences=average("sequences"),
        sampled_tokens=average("sampled_tokens"),
        trained_tokens=average("trained_tokens"),
        flops=average("flops"),
        preparation_flops=average("preparation_flops"),
        wall_seconds=average("wall_seconds"),
        header_bytes=max(run.result.header_bytes for run in runs),
    )
