"""From a points table to the curves of one comparable design: one task, split and protocol, one rate in each tuning.

What cannot be compared is refused, with what differs and the condition that chooses. Nothing is pooled silently.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from capacity.errors import DataError, SpecError
from capacity.runs.cell import BASE, MODEL
from capacity_analysis.data.cell_results import by_seed
from capacity_analysis.data.curves import CurveRows, curves_of
from capacity_analysis.data.recipes import keys, said, short, told
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import TUNED, at_chosen_rates
from capacity_analysis.types import Array, Unit

# What must be the same wherever accuracies are compared.
_QUESTION = ("task", "protocol")
ITEMS = ("evaluation.items",)
Drawn = Literal["seed", "common", "none"]


@dataclass(frozen=True)
class Selection:
    """Which rows answer. None: all must agree. `rates`: by method, or under "" for all."""

    split: str | None = None
    rates: Mapping[str, float] | None = None
    unit: Unit = "parameters"


@dataclass(frozen=True)
class Curve:
    """Cells that differ in the size of their update only: K sizes under up to S seeds.

    Attributes:
        label: what it is called among the curves of its model: "sft", "grpo sharing=tiled"; "base" for the untrained
            model, whose single size is 0.
        sizes: K, ascending, in the unit of the selection.
        accuracy: K × S, NaN where a size lacks the seed of that column.
        seeds: names of the columns; None if the table has no seeds, and then nothing can be paired.
        answers: K, how many answers each accuracy is a share of; None if not recorded.
        outcomes: K × S × I, shares of correct samples by item; None if not recorded.
        told: its method and the values of all fields that tell curves of its model apart, those that it has.
        cells: the names of its cells in the table.
    """

    label: str
    sizes: Array
    accuracy: Array
    seeds: tuple[int, ...] | None
    answers: Array | None
    outcomes: Array | None
    told: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The method that trained its cells; its label where curves were not told apart."""
        return str(self.told.get("method", self.label))


@dataclass(frozen=True)
class Design:
    """The curves of one model, and where the common ceiling is taken from.

    Attributes:
        base: the untrained model under the same protocol; None if the table has no such row.
        draws: what the answers follow from: "seed" or "common" draws, "none" for greedy answers; None if not recorded.
        ceiling: label of a curve and a size (in the unit), whose mean accuracy is the ceiling; `ceiling_reason` says
            why that one.
    """

    model: str | None
    model_parameters: float | None
    family: str | None
    task: str | None
    split: str | None
    unit: Unit
    base: Curve | None
    curves: tuple[Curve, ...]
    ceiling: tuple[str, float]
    ceiling_reason: str
    draws: Drawn | None = None


def designs(points: Points, selection: Selection) -> tuple[Design, ...]:
    """The design of each model in the table.

    Raises:
        SpecError: rows that cannot be compared with one another, or a selection that leaves none.
        DataError: no trained runs.
    """
    if not _trained(points).any():
        raise DataError(f"{points.source}: no trained runs, so there is no size to look for")
    points = of_one_question(points)
    split = points.frame["split"].fillna("")
    wanted = _split(points, selection.split)
    keep = at_chosen_rates(points, split == wanted, selection.rates)
    answers = of_one_question(points.where(keep), ITEMS)
    validation = points.where((split == "validation") & (wanted != "validation"))
    curves = curves_of(answers)
    return tuple(
        _design(answers, validation, model, [curve for curve in curves if curve.model == model], selection.unit)
        for model in dict.fromkeys(curve.model for curve in curves)
    )


def of_one_question(points: Points, names: Sequence[str] = _QUESTION) -> Points:
    """The rows of the one task and protocol that the trained rows have: the base at other temperatures is left out.

    Raises:
        SpecError: the trained rows have several, or answered different items.
    """
    _refuse_mixed_bases(points)
    for name in names:
        values, trained = told(points, name).values, _trained(points)
        found = list(dict.fromkeys(value for value, here in zip(values, trained, strict=True) if here))
        if len(found) > 1:
            listed = ", ".join("(not recorded)" if value is None else said(value) for value in found)
            one = said(next(value for value in found if value is not None))
            raise SpecError(
                f"{points.source}: runs that differ in {name} ({listed}) cannot be compared: choose with "
                f"--where {short(points, name)}={one}"
            )
        points = points.where([value is None or [value] == found for value in values])
    if names == ITEMS:
        _refuse_other_items(points)
    return points


def _refuse_other_items(points: Points) -> None:
    """Refuses runs of one model that answered different items: their accuracies are of different questions.

    Raises:
        SpecError: names the runs of the first such model.
    """
    for _, rows in points.frame.groupby("model", dropna=False, sort=False):
        known = rows[rows["items"].notna()]
        other = known[known["items"] != known["items"].iloc[0]] if len(known) else known
        if len(other):
            one, two = (
                f"row {row + 1} ({points.frame.loc[row, 'method']})" for row in (known.index[0], other.index[0])
            )
            raise SpecError(
                f"{points.source}: {two} answered other items than {one}, so they cannot be compared: evaluate all on "
                "the same items, or choose with --where"
            )


def _refuse_mixed_bases(points: Points) -> None:
    """Refuses runs of one model on different weights: neither a gain nor a curve is of both.

    Raises:
        SpecError: names the bases of the first such model.
    """
    found: dict[Any, dict[str, None]] = {}
    for fields in points.fields:
        if fields.get(BASE) is not None:
            found.setdefault(fields.get(MODEL), {})[fields[BASE]] = None
    for model, bases in found.items():
        if len(bases) > 1:
            raise SpecError(
                f"{points.source}: runs of {model} on different weights (base {', '.join(bases)}) cannot be compared: "
                f"choose with --where {BASE}={next(iter(bases))}"
            )


def _trained(points: Points) -> "pd.Series[bool]":
    return points.frame["trained_parameters"] > 0


def _split(points: Points, wanted: str | None) -> str:
    """The split that answers: test, unless another is wanted or the only one."""
    split = points.frame["split"].fillna("")
    found = list(dict.fromkeys(split[_trained(points)]))
    named = ", ".join(one or "(not recorded)" for one in found)
    if wanted is None:
        if len(found) > 1 and set(found) != {"test", "validation"}:
            raise SpecError(
                f"{points.source}: runs of different splits ({named}): choose with --where split={found[0]}"
            )
        return "test" if len(found) > 1 else found[0]
    if wanted not in found:
        raise SpecError(f"{points.source}: no trained runs with split {wanted!r}; there is {named}")
    return wanted


def _design(points: Points, validation: Points, model: str, rows: Sequence[CurveRows], unit: Unit) -> Design:
    curves = [_curve(points, r.rows, r.label, unit, r.told) for r in rows]
    base = np.flatnonzero((points.frame["method"] == "base") & (points.frame["model"].fillna("") == model))
    first = points.frame.iloc[rows[0].rows[0]]
    ceiling, why = _ceiling(points, curves, rows, validation, unit)
    return Design(
        model=model or None,
        model_parameters=None if pd.isna(first["model_parameters"]) else float(first["model_parameters"]),
        family=_text(first["family"]),
        task=_text(first["task"]),
        split=_text(first["split"]),
        unit=unit,
        base=_curve(points, base, "base", "parameters") if len(base) else None,
        curves=tuple(curves),
        ceiling=ceiling,
        ceiling_reason=why,
        draws=draws_of(first["protocol"]),
    )


def draws_of(protocol: Any) -> Drawn | None:
    """What the answers under a protocol follow from, by the word that `capacity.runs.points.protocol_name` writes."""
    word = re.fullmatch(r"T([0-9.e+-]+)-k\d+-n\d+-s\d+(-by-seed)?", "" if pd.isna(protocol) else str(protocol))
    if word is None:
        return None
    if float(word[1]) == 0:
        return "none"
    return "seed" if word[2] else "common"


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _curve(points: Points, rows: Any, label: str, unit: Unit, told: Mapping[str, Any] | None = None) -> Curve:
    """The rows of one curve as arrays. Runs of one seed under several projections count once, by their mean."""
    by_size = dict(iter(points.frame.iloc[rows].groupby("trained_parameters", sort=True)))
    runs = [by_seed(points, group.index) for group in by_size.values()]
    known = {seed for own, _ in runs for seed in own}
    seeds = None if None in known else tuple(sorted(seed for seed in known if seed is not None))
    columns = len(seeds) if seeds is not None else max(len(own) for own, _ in runs)
    accuracy = np.full((len(by_size), columns), np.nan)
    asked = None if points.outcomes is None else points.outcomes[rows]
    complete = asked is not None and not np.isnan(asked).any()
    outcomes = np.full((len(by_size), columns, len(points.items)), np.nan) if complete else None
    answers = np.full(len(by_size), np.nan)
    accuracies = points.frame["accuracy"].to_numpy(dtype=float, na_value=np.nan)
    for k, ((own, rows_of), group) in enumerate(zip(runs, by_size.values(), strict=True)):
        for place, (seed, some) in enumerate(zip(own, rows_of, strict=True)):
            column = place if seeds is None or seed is None else seeds.index(seed)
            accuracy[k, column] = accuracies[some].mean()
            if outcomes is not None and points.outcomes is not None:
                outcomes[k, column] = points.outcomes[some].mean(0)
        counts = (group["n_items"] * group["samples_per_item"]).where(group["n_correct"].notna())
        answers[k] = np.nan if counts.isna().any() else float(counts.min())
    sizes = np.array([_size(points, label, size, group, unit) for size, group in by_size.items()])
    order = np.argsort(sizes, kind="stable")
    if len(np.unique(sizes)) < len(sizes):
        raise SpecError(f"{points.source}: {label} has different numbers of parameters in equally many bytes")
    return Curve(
        label,
        sizes[order],
        accuracy[order],
        seeds,
        None if np.isnan(answers).any() else answers[order],
        None if outcomes is None else outcomes[order],
        told or {},
        tuple(str(cell) for cell in points.frame["cell"].iloc[rows].unique()),
    )


def _size(points: Points, label: str, parameters: Any, rows: pd.DataFrame, unit: Unit) -> float:
    if unit == "parameters":
        return float(parameters)
    if rows["update_bytes"].isna().any():
        raise SpecError(
            f"{points.source}: {label} at {parameters} parameters has no update_bytes: use --unit parameters"
        )
    # Entropy-coded updates differ in size from seed to seed: the largest is what has to fit.
    return float(rows["update_bytes"].max())


def _ceiling(
    points: Points, curves: Sequence[Curve], rows: Sequence[CurveRows], validation: Points, unit: Unit
) -> tuple[tuple[str, float], str]:
    """The curve and size whose accuracy is the common ceiling; chosen on validation, or by a rule blind to results.

    Validation of some sizes only cannot tell which of all is best.
    """
    here = {(curve.label, float(size)) for curve in curves for size in curve.sizes}
    best = _best_on_validation(points, rows, validation, unit)
    if here <= set(best):
        return best[0], "the best on validation"
    largest = max(size for _, size in here)
    labels = [curve for curve in curves if curve.sizes[-1] == largest]
    first = next((c for method in ("grpo", "sft") for c in labels if c.method == method), labels[0])
    return (first.label, largest), "the largest update"


def _best_on_validation(
    points: Points, rows: Sequence[CurveRows], validation: Points, unit: Unit
) -> list[tuple[str, float]]:
    """The curves and sizes that were tried on validation, the most accurate first."""
    tuning, places = keys(points, *TUNED), dict[str, list[tuple[str, float]]]()
    for curve in rows:
        for parameters, group in points.frame.iloc[curve.rows].groupby("trained_parameters"):
            place = curve.label, _size(points, curve.label, parameters, group, unit)
            places.setdefault(tuning[group.index[0]], []).append(place)
    tried = validation.frame.groupby([keys(validation, *TUNED), "learning_rate"], dropna=False)["accuracy"].mean()
    found = [(float(accuracy), place) for (key, _), accuracy in tried.items() for place in places.get(str(key), ())]
    return [place for _, place in sorted(found, key=lambda one: (-one[0], one[1]))]
