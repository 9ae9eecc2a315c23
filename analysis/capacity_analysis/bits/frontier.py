"""The Pareto frontier of accuracy over update size, and how sure each place on it is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capacity_analysis.bits.configurations import COUNTS, Configurations
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.types import Array, Items


@dataclass(frozen=True)
class FrontierPoint:
    """One configuration and its place.

    Attributes:
        configuration: its row: model, method, adapter, storage dtype, sharing, u, groups, rank, trained parameters,
            learning rate, those that are known.
        size: in the unit of the table.
        estimate: its accuracy, by its own runs.
        on_frontier: whether no update of the same model, method and demonstrations, and not the base, is at most as
            large and more accurate, or smaller and as accurate.
        membership: share of replicates in which it is; None if there are none.
    """

    configuration: dict[str, str | int | float]
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
    found: Configurations, replicates: int, rng: np.random.Generator, items: Items = "these"
) -> tuple[FrontierPoint, ...]:
    """Every trained configuration with its place on the frontier of its model, method and demonstrations, the base
    being free.

    Args:
        found: the configurations.
        replicates: how many; without any error known there are none, and then no membership.
        rng: of the replicates.
        items: target of inference.
    """
    frame = found.frame
    unknown = bool(np.isnan(found.errors).any())
    draws = None if unknown else found.replicates(replicates, rng, items)
    base = (frame["method"] == "base").to_numpy()
    points: list[FrontierPoint] = []
    for (model, *_), rows in frame[~base].groupby(["model", "method", "demonstrations"], dropna=False, sort=False):
        same = frame["model"].isna() if pd.isna(model) else (frame["model"] == model).fillna(False)
        index = np.concatenate([np.flatnonzero(base & same.to_numpy(dtype=bool)), rows.index.to_numpy()])
        sizes = frame["size"].to_numpy(dtype=float)[index]
        kept = pareto(sizes, frame["accuracy"].to_numpy(dtype=float)[index])
        members = None if draws is None else pareto(sizes, draws[:, index]).mean(0)
        for place, row in enumerate(index):
            if base[row]:
                continue
            points.append(
                FrontierPoint(
                    configuration=known(frame.loc[row]),
                    size=float(sizes[place]),
                    estimate=found.estimates[row],
                    on_frontier=bool(kept[place]),
                    membership=None if members is None else float(members[place]),
                )
            )
    return tuple(sorted(points, key=_order))


def _order(point: FrontierPoint) -> tuple[str, str, str, float]:
    names = ("model", "method", "demonstrations")
    model, method, demonstrations = (str(point.configuration.get(name, "")) for name in names)
    return model, method, demonstrations, point.size


def known(row: "pd.Series") -> dict[str, str | int | float]:
    """What is known of a configuration, as plain Python values."""
    names = [name for name in row.index if name not in ("size", "accuracy", "seeds")]
    values = {name: row[name] for name in names if not pd.isna(row[name])}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    # A column in which some rows have none holds its counts as floats.
    return {name: int(value) if name in COUNTS else value for name, value in plain.items()}
