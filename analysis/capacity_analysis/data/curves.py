"""Which rows of a points table make a curve: those of cells that differ in the size of their update only.

A field that says how an update is built or trained (sharing, steps, storage dtype) tells curves apart wherever it
varies. One that goes with the size may vary along a curve, and tells curves apart only where cells are of one size.
Such are kind and rank of the adapter, u, groups and the tuned rate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.errors import SpecError
from capacity.runs.cell import differing
from capacity_analysis.data.recipes import Told, field_of, recipes, said, short, told
from capacity_analysis.data.table import Points

# What may vary along a curve: all that makes an adapter larger, and the rates, which are tuned at each size.
ALONG = (
    "trained_parameters", "adapter", "adapter.rank", "adapter.u", "adapter.groups", "adapter.vectors",
    "adapter.vector_length", "adapter.length", "adapter.blocks", "learning_rate", "warm_start.learning_rate",
)  # fmt: skip
# Fields whose values need no name beside them.
_PLAIN = ("method", "demonstrations", "adapter", "storage_dtype")
_CHOICE = "adapter.choice."  # its fields say together how the projection P came about
_ANY = object()  # stands for the value of a field that a row cannot have
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class CurveRows:
    """The rows of one curve.

    Attributes:
        model: "" if it is not recorded.
        label: what the curve is called among those of its model: "sft", "grpo sharing=tiled".
        told: its method and the values of all fields that tell curves of its model apart, those that it has.
        rows: positions in the table, rising.
    """

    model: str
    label: str
    told: Mapping[str, Any]
    rows: Rows


def curves_of(points: Points, by: Sequence[str] | None = None) -> tuple[CurveRows, ...]:
    """The curves of the trained rows: by method, what tells them apart in rising or alphabetical order.

    A row that cannot have the field that tells curves apart belongs to each of them. For example, an update of all
    weights continues the curves of every sharing.

    Args:
        points: rows of one question, one learning rate in each tuning.
        by: fields that tell curves apart; None: the method, and whatever else does.

    Raises:
        SpecError: cells of one curve differ in more than `by` names and the size; says in what.
    """
    trained = np.flatnonzero(points.frame["trained_parameters"] > 0)
    known = points.frame.iloc[trained].fillna({"model": ""})
    groups: dict[tuple[str, str], Rows] = {
        (str(model), str(method)): trained[places]
        for (model, method), places in known.groupby(["model", "method"], sort=False).indices.items()
    }
    if by is not None:
        return _by(points, groups, tuple(field_of(points, name) for name in by))
    apart: dict[str, dict[str, None]] = {}  # of each method the fields, the same for all models
    for (_, method), rows in groups.items():
        apart.setdefault(method, {"method": None}).update(dict.fromkeys(_told_apart_by(points, rows)))
    made = [
        (model, _label(points, list(apart[method]), values), rows)
        for (model, method), own in groups.items()
        for values, rows in _split(_told(points, apart[method]), own).items()
    ]
    return _curves(points, made, dict.fromkeys(name for names in apart.values() for name in names))


def _by(points: Points, groups: Mapping[tuple[str, str], Rows], names: tuple[str, ...]) -> tuple[CurveRows, ...]:
    """The curves told apart by fields that were named. Those that vary within a method show in the labels."""
    fields, made = _told(points, names), []
    shown = [
        place
        for place, (name, field) in enumerate(zip(names, fields, strict=True))
        if name == "method" or any(_several(field, rows) for rows in groups.values())
    ]
    for model in dict.fromkeys(model for model, _ in groups):
        own = np.sort(np.concatenate([rows for (of, _), rows in groups.items() if of == model]))
        for values, rows in _split(fields, own).items():
            label = _label(points, [names[i] for i in shown], [values[i] for i in shown])
            further = _told_apart_by(points, rows)
            if further:
                value = said(recipes(points)[rows[0]].get(further[0]))
                raise SpecError(
                    f"{points.source}: cells of {label or 'one curve'} differ in {', '.join(further)}, not in their "
                    f"size alone: name that in --by, or choose with --where {short(points, further[0])}={value}"
                )
            made.append((model, label, rows))
    return _curves(points, made, names)


def _told_apart_by(points: Points, rows: Rows) -> tuple[str, ...]:
    """The fields by which curves among some rows must be told apart; none if they are one curve.

    Where cells are of one size, the fewest fields that tell them apart are taken, and of those the ones that leave
    the fewest curves.
    """
    known = recipes(points)
    names = [name for name in differing(known[row] for row in rows) if name not in ("model", "split")]
    values = {name: told(points, name) for name in names}
    ways = [name for name in names if name not in ALONG and _several(values[name], rows)]
    twins = [alike for own in _split([values[n] for n in ways], rows).values() for alike in _twins(points, own)]
    if not twins:
        return tuple(ways)
    among = dict.fromkeys(name for alike in twins for name in differing(known[row] for row in alike) if name in values)
    for count in range(1, len(among) + 1):
        splits = {some: _split([values[n] for n in (*ways, *some)], rows) for some in combinations(among, count)}
        enough = [some for some, split in splits.items() if not any(_twins(points, r) for r in split.values())]
        if enough:
            return (*ways, *min(enough, key=lambda some: len(splits[some])))
    return (*ways, *among)


def _told(points: Points, names: Iterable[str]) -> list[Told]:
    return [told(points, name) for name in names]


def _several(field: Told, rows: Rows) -> bool:
    return len({field.values[row] for row in rows if field.applies[row]}) > 1


def _twins(points: Points, rows: Rows) -> list[Rows]:
    """Rows of equal size in several cells, for each such size."""
    some = points.frame.iloc[rows]
    cells = some.groupby("trained_parameters", sort=True)["cell"]
    return [rows[place] for size, place in cells.indices.items() if some["cell"].iloc[place].nunique() > 1]


def _split(fields: Sequence[Told], rows: Rows) -> dict[tuple[Any, ...], Rows]:
    """Rows by their values of some fields. Rows to which a field does not apply are with each of its values."""
    values = {row: tuple(f.values[row] if f.applies[row] else _ANY for f in fields) for row in rows}
    seen = list(dict.fromkeys(values.values()))
    whole = [one for one in seen if not any(other != one and _agrees(one, other) for other in seen)]
    return {one: np.array([row for row in rows if _agrees(values[row], one)], dtype=np.intp) for one in whole}


def _agrees(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a is _ANY or a == b for a, b in zip(one, other, strict=True))


def _label(points: Points, names: Sequence[str], values: Sequence[Any]) -> str:
    words, chosen = [], {}
    for name, value in zip(names, values, strict=True):
        if value is _ANY or (name in _PLAIN and value is None):
            continue
        if name.startswith(_CHOICE):
            chosen[name] = value
        else:
            words.append(said(value) if name in _PLAIN else f"{short(points, name)}={said(value)}")
    return " ".join([*words, *_projection(points, chosen)])


def _projection(points: Points, choice: Mapping[str, Any]) -> list[str]:
    """The words for a projection: random or chosen, and in what several chosen ones differ."""
    if not choice:
        return []
    if all(value is None for value in choice.values()):
        return ["random P"]
    several = [name for name in choice if len({*told(points, name).values} - {None}) > 1]
    return ["chosen P", *(f"{short(points, name)}={said(choice[name])}" for name in several)]


def _curves(points: Points, made: Sequence[tuple[str, str, Rows]], names: Iterable[str]) -> tuple[CurveRows, ...]:
    """The curves with what tells them apart, by method, numbers by size and words by the alphabet."""
    fields = {name: told(points, name) for name in names}
    found = []
    for model, label, rows in made:
        values = {n: {f.values[row] for row in rows if f.applies[row]} for n, f in fields.items()}
        constant = {name: next(iter(of)) for name, of in values.items() if len(of) == 1}
        found.append(CurveRows(model, label, constant, rows))
    models = list(dict.fromkeys(model for model, _, _ in made))
    return tuple(sorted(found, key=lambda curve: (models.index(curve.model), *_order(curve.told))))


def _order(values: Mapping[str, Any]) -> tuple[Any, ...]:
    others = [value for name, value in values.items() if name != "method"]
    return said(values.get("method")), [(0, v, "") if isinstance(v, int | float) else (1, 0, said(v)) for v in others]


def pairs_of(curves: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Positions of every two curves in the direction in which all ratios are given: sft : grpo.

    Args:
        curves: what tells each of them.

    Returns:
        Numerator and denominator. sft is the numerator where it takes part, otherwise the first of the two.
    """
    order = sorted(range(len(curves)), key=lambda place: curves[place].get("method") != "sft")
    return list(combinations(order, 2))


def differ_in(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the fields that tell two curves apart, by what both tell.

    A random projection and a chosen one differ in one thing, "adapter.choice".
    """
    names = [name for name, value in first.items() if second.get(name, value) != value]
    choice = [name for name in names if name.startswith(_CHOICE)]
    if choice and any(all(told[name] is None for name in choice) for told in (first, second)):
        return (*(name for name in names if name not in choice), _CHOICE.removesuffix("."))
    return tuple(names)
