"""The Pareto frontier of accuracy over update size, and how sure the place of each cell on it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.bits.cells import MeasuredCells
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.types import Array, Items


@dataclass(frozen=True)
class FrontierPoint:
    """One cell and its place.

    Attributes:
        cell: its name.
        known: its fields, see `MeasuredCells.shown`.
        size: in the unit of the table.
        estimate: its accuracy, by its own runs.
        on_frontier: whether nothing is at most as large and more accurate, or smaller and as accurate. Compared are the
            updates of the same model, method and demonstrations, and the base.
        membership: share of replicates in which it is; None if there are none.
    """

    cell: str
    known: dict[str, str | int | float]
    size: float
    estimate: Estimate
    on_frontier: bool
    membership: float | None

    @property
    def accuracy(self) -> float:
        """Mean over seeds."""
        return self.estimate.value

    @property
    def low(self) -> float | None:
        """Lower end of the interval of the accuracy."""
        return self.estimate.low

    @property
    def high(self) -> float | None:
        """Upper end."""
        return self.estimate.high

    @property
    def seeds(self) -> int:
        """Runs behind it."""
        return self.estimate.seeds


def pareto(sizes: Array, accuracies: Array) -> NDArray[np.bool_]:
    """Which points no other dominates: at most as large and at least as accurate, and better in one of the two.

    Args:
        sizes: (n,).
        accuracies: (..., n), one row a replicate.

    Returns:
        (..., n). Equal points stand or fall together.
    """
    order = np.argsort(sizes, kind="stable")
    x, y = sizes[order], accuracies[..., order]
    best = np.maximum.accumulate(y, axis=-1)
    first = np.searchsorted(x, x, side="left")  # where each point's size begins
    last = np.searchsorted(x, x, side="right") - 1
    padded = np.concatenate([np.full((*y.shape[:-1], 1), -np.inf), best], axis=-1)
    below = padded[..., first]  # the best of all smaller updates
    kept = np.empty(y.shape, dtype=bool)
    kept[..., order] = (y > below) & (y >= best[..., last])
    return kept


def frontier(
    found: MeasuredCells, replicates: int, rng: np.random.Generator, items: Items = "these"
) -> tuple[FrontierPoint, ...]:
    """Every trained cell with its place on the frontier of its model, method and demonstrations, the base being free.

    Args:
        found: the cells.
        replicates: how many; without any error known there are none, and then no membership.
        rng: of the replicates.
        items: target of inference.
    """
    draws = None if np.isnan(found.errors).any() else found.replicates(replicates, rng, items)
    groups: dict[tuple[object, ...], list[int]] = {}
    for number in np.flatnonzero(found.trained):
        groups.setdefault(_group(found.shown[number]), []).append(int(number))
    points: list[FrontierPoint] = []
    for (model, *_), own in groups.items():
        base = [int(i) for i in np.flatnonzero(~found.trained) if found.shown[i].get("model") == model]
        index = np.array([*base, *own])
        kept = pareto(found.sizes[index], found.accuracies[index])
        members = None if draws is None else pareto(found.sizes[index], draws[:, index]).mean(0)
        for place, cell in enumerate(own, start=len(base)):
            points.append(
                FrontierPoint(
                    cell=found.names[cell],
                    known=found.shown[cell],
                    size=float(found.sizes[cell]),
                    estimate=found.estimates[cell],
                    on_frontier=bool(kept[place]),
                    membership=None if members is None else float(members[place]),
                )
            )
    return tuple(sorted(points, key=lambda p: (*(str(name or "") for name in _group(p.known)), p.size)))


def _group(known: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(known.get(name) for name in ("model", "method", "demonstrations"))
