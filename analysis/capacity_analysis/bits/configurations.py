"""The arms of a points table as configurations of an update: what is stored, how large it is, how accurate.

A configuration is method × adapter × storage dtype × sharing × u × groups × size; its runs are its seeds. Replicates of
all accuracies at once carry the uncertainty to whatever is computed from them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from capacity.errors import DataError, SpecError
from capacity_analysis.data.cell_results import accuracy_of
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import Estimate, Over
from capacity_analysis.types import Array, Items, Unit

# What tells configurations apart; the last four are known for study folders only.
DETAILS = ("sharing", "u", "groups", "rank")
COUNTS = ("u", "groups", "rank", "trained_parameters")
KEY = ("model", "method", "demonstrations", "adapter", "storage_dtype", *DETAILS, "trained_parameters", "learning_rate")


@dataclass(frozen=True)
class Configurations:
    """Configurations of one task and protocol.

    Attributes:
        frame: one row a configuration, the base of each model first: the columns of `KEY`, `size` (in `unit`, mean over
            seeds; 0 for the base), `accuracy` (mean over seeds), `seeds`.
        estimates: the accuracy of each configuration by its own runs; replicates pool the spread of all of them.
        errors: standard error of each accuracy for fresh seeds, (configurations,); NaN where nothing is known of it.
        item_outcomes: configurations × items, mean over seeds, or None.
        dispersion: variance between seeds over the binomial variance, pooled over all configurations; None if no
            configuration has two seeds, or all seeds agree exactly: then the binomial variance stands for it.
        df: degrees of freedom behind it.
        unit: of `size`.
        source: what was read.
    """

    frame: pd.DataFrame
    estimates: tuple[Estimate, ...]
    errors: Array
    item_outcomes: Array | None
    dispersion: float | None
    df: int
    unit: Unit
    source: str

    @property
    def method(self) -> str:
        """How replicates are made, in words."""
        if np.isnan(self.errors).all():
            return "no counts and no spread between seeds: no interval"
        if self.dispersion is None and self.df:
            return "binomial over items (all seeds agree exactly, so their spread cannot be estimated)"
        if self.dispersion is None:
            return "binomial over items (one seed: the spread between seeds is unknown)"
        return f"parametric bootstrap over seeds, variance pooled over sizes ({self.df} degrees of freedom)"

    def over(self, items: Items) -> Over:
        """What is drawn anew in the replicates."""
        if self.dispersion is None and not self.df:
            return "items"
        return "seeds" if items == "these" else "seeds and items"

    def replicates(self, count: int, rng: np.random.Generator, items: Items = "these") -> Array:
        """Accuracies as other seeds could have given them, (count, configurations).

        Normal with the pooled variance, which is itself uncertain: each replicate divides it by χ²/df, as Student's t
        does. With `items` "population" one draw of item weights for all configurations is added to it (Rubin 1981).

        Raises:
            DataError: nothing is known of the errors, or items are asked for that the source does not have.
        """
        if np.isnan(self.errors).any():
            raise DataError(f"{self.source}: neither counts nor a second seed, so there are no intervals")
        noise = rng.standard_normal((count, len(self.errors))) * self.errors
        if self.dispersion is not None:
            noise *= np.sqrt(self.df / rng.chisquare(self.df, (count, 1)))
        values = self.frame["accuracy"].to_numpy(dtype=float)
        if items == "these":
            return np.asarray(values + noise)
        if self.item_outcomes is None:
            raise DataError(
                f"{self.source}: has no per-item outcomes, so nothing can be said of other items: use --items these"
            )
        weights = rng.standard_exponential((count, self.item_outcomes.shape[1]))
        weights /= weights.sum(1, keepdims=True)
        return np.asarray(weights @ self.item_outcomes.T + noise)


def configurations(points: Points, *, unit: Unit | None = None, task: str | None = None) -> Configurations:
    """The configurations of a points table.

    Args:
        points: as read. Validation rows only choose among the learning rates of an arm; controls (the base at other
            temperatures, method "temperature") are left out.
        unit: of sizes: bytes of the payload, or trained parameters. None: bytes if every trained row has them.
        task: needed if there are several.

    Raises:
        SpecError: several tasks or protocols, sizes that are not known, no trained rows.
    """
    keep = reported_rows(points) & _one_protocol(points, task)
    details = {
        name: pd.Series([fields.get(f"adapter.{name}") for fields in points.fields], index=points.frame.index)
        for name in DETAILS
    }
    frame = points.frame.assign(**details)[keep]
    unit = _unit(frame, points.source, unit)
    frame = frame.assign(size=frame["update_bytes" if unit == "bytes" else "trained_parameters"].astype("Float64"))
    frame.loc[frame["method"] == "base", "size"] = 0.0
    groups = list(frame.groupby(list(KEY), dropna=False, sort=False).groups.items())
    groups.sort(key=lambda group: frame.loc[group[1][0], "method"] != "base")
    rows = [frame.loc[index] for _, index in groups]
    estimates = tuple(accuracy_of(points, index) for _, index in groups)
    table = pd.DataFrame(
        [
            {
                **{name: first[name] for name in KEY},
                "size": float(found["size"].mean()),
                "accuracy": estimate.value,
                "seeds": len(found),
            }
            for found, first, estimate in zip(rows, (found.iloc[0] for found in rows), estimates, strict=True)
        ]
    )
    errors, dispersion, df = _errors(rows)
    outcomes = None
    if points.outcomes is not None:
        asked = points.outcomes[keep.to_numpy()]
        columns = ~np.isnan(asked).any(0)
        if columns.any():
            outcomes = np.array([points.outcomes[index][:, columns].mean(0) for _, index in groups])
    return Configurations(table, estimates, errors, outcomes, dispersion, df, unit, points.source)


def _one_protocol(points: Points, task: str | None) -> "pd.Series[bool]":
    """The rows of one task and protocol, without controls."""
    frame, source = points.frame, points.source
    keep = (frame["method"] != "temperature").astype(bool)
    if task is not None:
        keep &= (frame["task"] == task).fillna(False).astype(bool)
        if not keep.any():
            raise SpecError(f"{source}: no rows of task {task!r}; it has {', '.join(_values(frame['task']))}")
    trained = keep & (frame["method"] != "base").astype(bool)
    if not trained.any():
        raise SpecError(f"{source}: no rows of a trained update, so there is no size to compare")
    tasks = _values(frame.loc[trained, "task"])
    if len(tasks) > 1:
        raise SpecError(f"{source}: several tasks ({', '.join(tasks)}): choose one with --task")
    protocols = _values(frame.loc[trained, "protocol"])
    if len(protocols) > 1:
        # Validation has a protocol of its own where fewer items do not show in the name; it was checked by the split.
        raise SpecError(f"{source}: several evaluation protocols ({', '.join(protocols)}) cannot be pooled: keep one")
    if protocols:
        keep &= (frame["protocol"].isna() | (frame["protocol"] == protocols[0])).astype(bool)
    return keep


def _values(column: "pd.Series[str]") -> list[str]:
    return sorted({str(value) for value in column.dropna()})


def _unit(frame: pd.DataFrame, source: str, unit: Unit | None) -> Unit:
    missing = frame.loc[frame["method"] != "base", "update_bytes"].isna()
    if unit is None:
        return "parameters" if missing.any() else "bytes"
    if unit == "bytes" and missing.any():
        raise SpecError(
            f"{source}: column update_bytes is missing in row {int(missing.idxmax()) + 1}: use --unit parameters"
        )
    return unit


def _errors(rows: list[pd.DataFrame]) -> tuple[Array, float | None, int]:
    """Standard errors of the configurations' accuracies, dispersion, degrees of freedom."""
    counted = all(found["n_items"].notna().all() for found in rows)
    seeds = np.array([len(found) for found in rows], dtype=float)
    answers = np.array(
        [float((found["n_items"] * found["samples_per_item"].fillna(1)).mean()) if counted else 1.0 for found in rows]
    )
    means = np.array([float(found["accuracy"].mean()) for found in rows])
    # Half an answer is added either way, so that an accuracy of 0 or 1 has a variance too.
    total = answers * seeds if counted else np.full(len(rows), 1000.0)
    shrunk = (means * total + 0.5) / (total + 1)
    unit_variance = shrunk * (1 - shrunk) / answers
    df = int((seeds - 1).sum())
    squares = np.array([float(((found["accuracy"] - found["accuracy"].mean()) ** 2).sum()) for found in rows])
    if df == 0 or squares.sum() == 0:  # one seed, or seeds that agree everywhere: no spread to estimate
        errors = np.sqrt(unit_variance / seeds) if counted else np.full(len(rows), np.nan)
        return errors, None, df
    dispersion = float(squares.sum() / ((seeds - 1) * unit_variance).sum())
    return np.sqrt(dispersion * unit_variance / seeds), dispersion, df
