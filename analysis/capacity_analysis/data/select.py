"""From a points table to the arms of one comparable design: one task, split, protocol and dtype, one rate a size.

What cannot be compared is refused, with what differs and the option that chooses. Nothing is pooled silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capacity.errors import DataError, SpecError
from capacity_analysis.data.table import Points, refuse_duplicates
from capacity_analysis.types import Array, Unit

UNSEEN = "none"  # what the column demonstrations says of methods that see none


@dataclass(frozen=True)
class Selection:
    """Which rows are meant. None: all must agree. `rates`: by method, or under "" for all."""

    task: str | None = None
    demonstrations: str | None = None
    split: str | None = None
    protocol: str | None = None
    adapter: str | None = None
    storage_dtype: str | None = None
    rates: Mapping[str, float] | None = None
    unit: Unit = "parameters"


@dataclass(frozen=True)
class Arm:
    """One method on one model at K sizes and up to S seeds.

    Attributes:
        method: of training; "base" has the single size 0.
        sizes: K, ascending, in the unit of the selection.
        accuracy: K × S, NaN where a size lacks the seed of that column.
        seeds: names of the columns; None if the table has no seeds, and then nothing can be paired.
        answers: K, how many answers each accuracy is a share of; None if not recorded.
        outcomes: K × S × I, shares of right samples by item; None if not recorded.
    """

    method: str
    sizes: Array
    accuracy: Array
    seeds: tuple[int, ...] | None
    answers: Array | None
    outcomes: Array | None


@dataclass(frozen=True)
class Design:
    """The arms of one model, and where the common ceiling is taken from.

    Attributes:
        base: the untrained model under the same protocol; None if the table has no such row.
        ceiling: method and size (in the unit) whose mean accuracy is the ceiling; `ceiling_reason` says why that one.
    """

    model: str | None
    model_parameters: float | None
    family: str | None
    task: str | None
    split: str | None
    unit: Unit
    base: Arm | None
    arms: tuple[Arm, ...]
    ceiling: tuple[str, float]
    ceiling_reason: str


def designs(points: Points, selection: Selection) -> tuple[Design, ...]:
    """The design of each model in the table.

    Raises:
        SpecError: rows that cannot be compared with one another, or a selection that leaves none.
        DataError: no trained runs.
    """
    refuse_duplicates(points)
    if not (points.frame["trained_parameters"] > 0).any():
        raise DataError(f"{points.source}: no trained runs, so there is no size to look for")
    points = _of_demonstrations(_of_task(points, selection.task), selection.demonstrations)
    for column, option in (("adapter", selection.adapter), ("storage_dtype", selection.storage_dtype)):
        if option is not None:
            untrained = points.frame["trained_parameters"] == 0
            points = _keep(points, untrained | (points.frame[column] == option).fillna(False), column, option)
    points = _of_protocol(points, selection.protocol)
    _one_value(points, "storage_dtype", "--storage-dtype")
    points, validation = _of_split(points, selection.split)
    points = _of_rate(points, validation, selection.rates)
    models = points.frame["model"].fillna("")
    return tuple(
        _design(points.where(models == name), validation.where(validation.frame["model"].fillna("") == name), selection)
        for name in dict.fromkeys(models[points.frame["trained_parameters"] > 0])
    )


def _trained(frame: pd.DataFrame) -> pd.Series:
    return frame["trained_parameters"] > 0


def _keep(points: Points, keep: pd.Series, column: str, wanted: str) -> Points:
    if not (keep & _trained(points.frame)).any():
        there = ", ".join(_values(points.frame[_trained(points.frame)], column))
        raise SpecError(f"{points.source}: no trained runs with {column} {wanted!r}; there is {there}")
    return points.where(keep)


def _values(frame: pd.DataFrame, column: str) -> list[str]:
    return [str(v) for v in dict.fromkeys(frame[column].fillna("(not recorded)"))]


def _one_value(points: Points, column: str, option: str) -> None:
    found = _values(points.frame[_trained(points.frame)], column)
    if len(found) > 1:
        raise SpecError(f"{points.source}: runs of different {column} ({', '.join(found)}): choose with {option}")


def _of_task(points: Points, wanted: str | None) -> Points:
    """Rows of one task."""
    if wanted is not None:
        return _keep(points, (points.frame["task"] == wanted).fillna(False), "task", wanted)
    _one_value(points, "task", "--task")
    return points


def _of_demonstrations(points: Points, wanted: str | None) -> Points:
    """Rows of one kind of demonstrations; methods that see none belong to every kind."""
    shown = points.frame["demonstrations"].fillna(UNSEEN)
    seen = list(dict.fromkeys(shown[_trained(points.frame) & (shown != UNSEEN)]))
    if wanted is not None:
        return _keep(points, (shown == wanted) | (shown == UNSEEN), "demonstrations", wanted)
    if len(seen) > 1:
        raise SpecError(
            f"{points.source}: runs on different demonstrations ({', '.join(seen)}): choose with --demonstrations"
        )
    return points


def _of_protocol(points: Points, wanted: str | None) -> Points:
    """Rows of one protocol, that of the trained runs: the base at other temperatures is not taken for the base."""
    if wanted is not None:
        return _keep(points, (points.frame["protocol"] == wanted).fillna(False), "protocol", wanted)
    _one_value(points, "protocol", "--protocol")
    protocol = points.frame["protocol"].fillna("")
    return points.where(protocol == protocol[_trained(points.frame)].iloc[0])


def _of_split(points: Points, wanted: str | None) -> tuple[Points, Points]:
    """Rows to answer from, and the validation rows to select with."""
    split = points.frame["split"].fillna("")
    found = list(dict.fromkeys(split[_trained(points.frame)]))
    if wanted is None:
        if len(found) > 1 and set(found) != {"test", "validation"}:
            named = ", ".join(s or "(not recorded)" for s in found)
            raise SpecError(f"{points.source}: runs of different splits ({named}): choose with --split")
        wanted = "test" if len(found) > 1 else found[0]
    answers = _keep(points, split == wanted, "split", wanted)
    return answers, points.where((split == "validation") & (wanted != "validation"))


def _of_rate(points: Points, validation: Points, wanted: Mapping[str, float] | None) -> Points:
    """One learning rate for each arm and size: the wanted one, or the best on validation; never the best on test."""
    frame, keep = points.frame, ~_trained(points.frame)
    place = ["model", "method", "adapter", "trained_parameters"]
    for key, rows in frame[_trained(frame)].groupby(place, dropna=False, sort=False):
        rates = list(dict.fromkeys(rows["learning_rate"].dropna()))
        method, size = str(key[1]), key[3]
        asked = None if wanted is None else wanted.get(method, wanted.get(""))
        if asked is not None:
            chosen = rows.index[(rows["learning_rate"].sub(asked).abs() <= 1e-9 * asked).fillna(False)]
            if not len(chosen) and rates:
                tried = ", ".join(f"{r:g}" for r in rates)
                raise SpecError(
                    f"{points.source}: {method} at {size} parameters has no runs at rate {asked:g}; it has {tried}"
                )
            keep[chosen if rates else rows.index] = True
        elif len(rates) <= 1:
            keep[rows.index] = True
        else:
            keep[rows.index[(rows["learning_rate"] == _best_rate(points, validation, key, rates)).fillna(False)]] = True
    return points.where(keep)


def _best_rate(points: Points, validation: Points, key: Any, rates: list[float]) -> float:
    place = ["model", "method", "adapter", "trained_parameters"]
    tried = validation.frame
    for column, value in zip(place, key, strict=True):
        tried = tried[tried[column].isna() if pd.isna(value) else (tried[column] == value).fillna(False)]
    means = tried.groupby("learning_rate")["accuracy"].mean()
    if means.empty or means.idxmax() not in rates:
        listed = ", ".join(f"{r:g}" for r in rates)
        why = (
            "no validation rows to choose by"
            if means.empty
            else f"the best on validation, {means.idxmax():g}, is not there"
        )
        raise SpecError(
            f"{points.source}: {key[1]} at {key[3]} parameters has runs at rates {listed}, and {why}: "
            "choose with --rate; the best on test would be biased upwards"
        )
    return float(means.idxmax())


def _design(points: Points, validation: Points, selection: Selection) -> Design:
    frame = points.frame
    trained = frame[_trained(frame)]
    arms = tuple(
        _arm(points, trained[trained["method"] == m], m, selection.unit) for m in dict.fromkeys(trained["method"])
    )
    base_rows = frame[(frame["method"] == "base")]
    base = _arm(points, base_rows, "base", "parameters") if len(base_rows) else None
    first = trained.iloc[0]
    ceiling, why = _ceiling(arms, validation.frame, selection.unit)
    return Design(
        model=_text(first["model"]),
        model_parameters=None if pd.isna(first["model_parameters"]) else float(first["model_parameters"]),
        family=_text(first["family"]),
        task=_text(first["task"]),
        split=_text(first["split"]),
        unit=selection.unit,
        base=base,
        arms=tuple(sorted(arms, key=lambda arm: arm.method)),
        ceiling=ceiling,
        ceiling_reason=why,
    )


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _arm(points: Points, rows: pd.DataFrame, method: str, unit: Unit) -> Arm:
    """The rows of one method as arrays."""
    by_size = dict(iter(rows.groupby("trained_parameters", sort=True)))
    for size, group in by_size.items():
        kinds = _values(group, "adapter")
        if len(kinds) > 1 and method != "base":
            raise SpecError(
                f"{points.source}: {method} has different adapters at {size} parameters ({', '.join(kinds)}): "
                "choose with --adapter"
            )
    named = rows["seed"].notna().all()
    seeds = tuple(sorted({int(s) for s in rows["seed"]})) if named else None
    columns = len(seeds) if seeds is not None else max(len(g) for g in by_size.values())
    accuracy = np.full((len(by_size), columns), np.nan)
    asked = None if points.outcomes is None else points.outcomes[rows.index]
    complete = asked is not None and not np.isnan(asked).any()
    outcomes = np.full((len(by_size), columns, len(points.items)), np.nan) if complete else None
    answers = np.full(len(by_size), np.nan)
    for k, group in enumerate(by_size.values()):
        for place, (label, row) in enumerate(group.iterrows()):
            column = seeds.index(int(row["seed"])) if seeds is not None else place
            accuracy[k, column] = row["accuracy"]
            if outcomes is not None and points.outcomes is not None:
                outcomes[k, column] = points.outcomes[label]
        counts = (group["n_items"] * group["samples_per_item"]).where(group["n_correct"].notna())
        answers[k] = np.nan if counts.isna().any() else float(counts.min())
    sizes = np.array([_size(points, method, size, group, unit) for size, group in by_size.items()])
    order = np.argsort(sizes, kind="stable")
    if len(np.unique(sizes)) < len(sizes):
        raise SpecError(f"{points.source}: {method} has different numbers of parameters in equally many bytes")
    return Arm(
        method,
        sizes[order],
        accuracy[order],
        seeds,
        None if np.isnan(answers).any() else answers[order],
        None if outcomes is None else outcomes[order],
    )


def _size(points: Points, method: str, parameters: Any, rows: pd.DataFrame, unit: Unit) -> float:
    if unit == "parameters":
        return float(parameters)
    if rows["update_bytes"].isna().any():
        raise SpecError(
            f"{points.source}: {method} at {parameters} parameters has no update_bytes: use --unit parameters"
        )
    # Entropy-coded updates differ in size from seed to seed: the largest is what has to fit.
    return float(rows["update_bytes"].max())


def _ceiling(arms: tuple[Arm, ...], validation: pd.DataFrame, unit: Unit) -> tuple[tuple[str, float], str]:
    """Method and size whose accuracy is the common ceiling; chosen on validation, or by a rule blind to results.

    Validation of some sizes only cannot tell which of all is best.
    """
    here = {(arm.method, float(size)) for arm in arms for size in arm.sizes}
    column = "trained_parameters" if unit == "parameters" else "update_bytes"
    tried = (
        validation[_trained(validation)].groupby(["method", column, "learning_rate"], dropna=False)["accuracy"].mean()
    )
    best = [(method, float(size)) for method, size, _ in tried.sort_values(ascending=False).index if not pd.isna(size)]
    if here <= set(best):
        return next(place for place in best if place in here), "the best on validation"
    largest = max(size for _, size in here)
    methods = [arm.method for arm in arms if arm.sizes[-1] == largest]
    method = next((m for m in ("grpo", "sft") if m in methods), min(methods))
    return (method, largest), "the largest update"
