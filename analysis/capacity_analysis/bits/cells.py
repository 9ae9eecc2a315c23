"""The cells of a points table with their accuracies: what is stored, how large it is, how accurate it is.

Replicates of all accuracies at once carry the uncertainty to whatever is computed from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capacity.errors import DataError, SpecError
from capacity.runs.cell import differing
from capacity_analysis.data.cell_results import accuracy_of, by_seed
from capacity_analysis.data.recipes import recipes, said, short
from capacity_analysis.data.select import ITEMS, Drawn, draws_of, of_one_question
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.estimate import Estimate, Over
from capacity_analysis.types import Array, Items, Unit

# What is shown of every cell; a field is shown too where cells differ in it.
SHOWN = (
    "model", "method", "demonstrations", "adapter", "storage_dtype", "sharing", "u", "groups", "rank",
    "trained_parameters", "learning_rate",
)  # fmt: skip
_ONE_QUESTION = ("task", "protocol", "split")
_OF_KINDS = ("adapter", "grpo", "rft", "warm_start")  # which of their fields a cell has follows from its kind


@dataclass(frozen=True)
class MeasuredCells:
    """The cells of one task and protocol, N of them, the base of each model first.

    Attributes:
        points: the reported rows, of which they are the cells.
        names: of each cell in `points.frame["cell"]`.
        shown: what is known of each: the fields of `SHOWN`, and those in which cells differ, by their short names.
        sizes: N, in `unit`, mean over seeds; 0 for the base.
        accuracies: N, mean over seeds.
        estimates: N, the accuracy of each by its own runs; replicates pool the spread of all of them.
        seeds: N, runs behind each.
        errors: N, standard error of each accuracy for fresh seeds; NaN where nothing is known of it.
        item_outcomes: N × items, mean over seeds, or None.
        dispersion: variance between seeds over the binomial variance, pooled over all cells. It is None if no cell has
            two seeds, or all seeds agree exactly. Then the binomial variance stands for it.
        df: degrees of freedom behind it.
        unit: of `sizes`.
        draws: what the answers follow from, see `capacity_analysis.data.select.Design`.
    """

    points: Points
    names: tuple[str, ...]
    shown: tuple[dict[str, str | int | float], ...]
    sizes: Array
    accuracies: Array
    estimates: tuple[Estimate, ...]
    seeds: Array
    errors: Array
    item_outcomes: Array | None
    dispersion: float | None
    df: int
    unit: Unit
    draws: Drawn | None

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Which cells are of trained updates, N."""
        return np.array([shown["method"] != "base" for shown in self.shown])

    @property
    def method(self) -> str:
        """How replicates are made, in words."""
        if np.isnan(self.errors).all():
            return "no counts and no spread between seeds: no interval"
        if self.dispersion is None and self.df:
            return "binomial over items (all seeds agree exactly, so their spread cannot be estimated)"
        if self.dispersion is None:
            return "binomial over items (one seed: no claim about methods, as the spread between seeds is unknown)"
        found = f"parametric bootstrap over seeds, variance pooled over sizes ({self.df} degrees of freedom)"
        if self.draws != "common":
            return found
        if self.item_outcomes is None:
            return f"{found}; the one draw that all runs share is left out, as answers are not recorded"
        return f"{found}, and over items, which stands for the one draw that all runs share too"

    def over(self, items: Items) -> Over:
        """What is drawn anew in the replicates."""
        if self.dispersion is None and not self.df:
            return "items"
        return "seeds and items" if self._weighs(items) else "seeds"

    def _weighs(self, items: Items) -> bool:
        """Whether replicates have weights of items."""
        return items == "population" or (self.draws == "common" and self.item_outcomes is not None)

    def replicates(self, count: int, rng: np.random.Generator, items: Items = "these") -> Array:
        """Accuracies as other seeds could have given them, (count, N).

        Normal with the pooled variance, which is itself uncertain: each replicate divides it by χ²/df, as Student's t
        does. With `items` "population" one draw of item weights for all cells is added to it (Rubin 1981). It is added
        too where all runs share one draw of their answers, whose error cannot be told from that of the items.

        Raises:
            DataError: nothing is known of the errors, or items are asked for that the source does not have.
        """
        if np.isnan(self.errors).any():
            raise DataError(f"{self.points.source}: neither counts nor a second seed, so there are no intervals")
        # Each cell has its own numbers, whatever the order of the rows and the names.
        place = np.argsort(np.lexsort((self.seeds, self.sizes, self.accuracies)))
        noise = rng.standard_normal((count, len(self.errors)))[:, place] * self.errors
        if self.dispersion is not None:
            noise *= np.sqrt(self.df / rng.chisquare(self.df, (count, 1)))
        if not self._weighs(items):
            return np.asarray(self.accuracies + noise)
        if self.item_outcomes is None:
            raise DataError(
                f"{self.points.source}: has no per-item outcomes, so nothing can be said of other items: use "
                "--items these"
            )
        weights = rng.standard_exponential((count, self.item_outcomes.shape[1]))
        weights /= weights.sum(1, keepdims=True)
        return np.asarray(weights @ self.item_outcomes.T + noise)


def measured_cells(points: Points, unit: Unit | None = None) -> MeasuredCells:
    """The cells of a points table.

    Args:
        points: rows of one task and protocol. Validation rows only choose among the learning rates of a tuning; the
            base at other temperatures is left out.
        unit: of sizes: bytes of the payload, or trained parameters. None: bytes if every trained row has them.

    Raises:
        SpecError: several tasks or protocols, sizes that are not known, no trained rows.
    """
    points = points.where((points.frame["trained_parameters"] > 0) | (points.frame["method"] == "base"))
    points = of_one_question(points)
    points = of_one_question(points.where(reported_rows(points)), ITEMS)
    frame = points.frame
    if not (frame["trained_parameters"] > 0).any():
        raise SpecError(f"{points.source}: no rows of a trained update, so there is no size to compare")
    unit = _unit(frame, points.source, unit)
    sizes = frame["update_bytes" if unit == "bytes" else "trained_parameters"].astype("Float64")
    sizes = sizes.where(frame["method"] != "base", 0.0)
    groups = list(frame.groupby("cell", sort=False).groups.items())
    groups.sort(key=lambda group: frame.loc[group[1][0], "method"] != "base")
    runs = [by_seed(points, index)[1] for _, index in groups]
    estimates = tuple(accuracy_of(points, index) for _, index in groups)
    errors, dispersion, df = _errors(frame, runs)
    outcomes = None
    if points.outcomes is not None:
        columns = ~np.isnan(points.outcomes).any(0)
        if columns.any():
            asked = points.outcomes[:, columns]
            outcomes = np.array([np.mean([asked[own].mean(0) for own in rows_of], axis=0) for rows_of in runs])
    return MeasuredCells(
        points=points,
        names=tuple(str(name) for name, _ in groups),
        shown=_shown(points, [int(index[0]) for _, index in groups]),
        sizes=np.array([float(sizes[index].max()) for _, index in groups]),  # of a payload that depends on its values
        accuracies=np.array([estimate.value for estimate in estimates]),
        estimates=estimates,
        seeds=np.array([float(len(rows_of)) for rows_of in runs]),
        errors=errors,
        item_outcomes=outcomes,
        dispersion=dispersion,
        df=df,
        unit=unit,
        draws=draws_of(frame.loc[frame["trained_parameters"] > 0, "protocol"].iloc[0]),
    )


def _shown(points: Points, rows: list[int]) -> tuple[dict[str, str | int | float], ...]:
    """What is known of the cells of some rows."""
    own = [recipes(points)[row] for row in rows]
    trained = [recipe for recipe in own if recipe["method"] != "base"]
    telling = [name for name in differing(trained) if name not in _ONE_QUESTION and _tells(name, trained)]
    known = [{short(points, name): value for name, value in recipe.items()} for recipe in own]
    names = dict.fromkeys([*SHOWN, *(short(points, name) for name in telling)])
    return tuple({name: _value(fields[name]) for name in names if fields.get(name) is not None} for fields in known)


def _tells(name: str, recipes_of_cells: list[Mapping[str, object]]) -> bool:
    """Tells whether a field in which cells differ says more than their methods and adapters do."""
    if name.partition(".")[0] not in _OF_KINDS:
        return True
    return len({said(recipe[name]) for recipe in recipes_of_cells if recipe.get(name) is not None}) > 1


def _value(value: object) -> str | int | float:
    return value if isinstance(value, str | int | float) else said(value)


def _unit(frame: pd.DataFrame, source: str, unit: Unit | None) -> Unit:
    missing = frame.loc[frame["method"] != "base", "update_bytes"].isna()
    if unit is None:
        return "parameters" if missing.any() else "bytes"
    if unit == "bytes" and missing.any():
        raise SpecError(
            f"{source}: column update_bytes is missing in row {int(missing.idxmax()) + 1}: use --unit parameters"
        )
    return unit


def _errors(frame: pd.DataFrame, runs: Sequence[Sequence[Sequence[int]]]) -> tuple[Array, float | None, int]:
    """Standard errors of the cells' accuracies, dispersion, degrees of freedom.

    Args:
        frame: the reported rows.
        runs: of each cell the rows of each seed.
    """
    counts = frame["n_items"] * frame["samples_per_item"].fillna(1)
    counted = bool(counts.notna().all())
    seeds = np.array([len(rows_of) for rows_of in runs], dtype=float)
    answers = np.array([float(counts.iloc[list(chain(*rows_of))].mean()) if counted else 1.0 for rows_of in runs])
    accuracies = [np.array([float(frame["accuracy"].iloc[own].mean()) for own in rows_of]) for rows_of in runs]
    means = np.array([own.mean() for own in accuracies])
    # Half an answer is added either way, so that an accuracy of 0 or 1 has a variance too.
    total = answers * seeds if counted else np.full(len(runs), 1000.0)
    shrunk = (means * total + 0.5) / (total + 1)
    unit_variance = shrunk * (1 - shrunk) / answers
    df = int((seeds - 1).sum())
    # Seeds that agree have no spread; their computed mean may differ from them in its last digit.
    squares = np.array([float(((own - own.mean()) ** 2).sum()) if np.ptp(own) else 0.0 for own in accuracies])
    if df == 0 or squares.sum() == 0:  # one seed, or seeds that agree everywhere: no spread to estimate
        errors = np.sqrt(unit_variance / seeds) if counted else np.full(len(runs), np.nan)
        return errors, None, df
    dispersion = float(squares.sum() / ((seeds - 1) * unit_variance).sum())
    return np.sqrt(dispersion * unit_variance / seeds), dispersion, df
