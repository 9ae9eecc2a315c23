"""Which rows of a points table make a curve: those of cells that differ in the size of their update only.

A field that says how an update is built or trained (sharing, steps, storage dtype) tells curves apart wherever it
varies. One that goes with the size (kind and rank of the adapter, u, groups, the tuned rate) may vary along a curve,
and tells curves apart only where cells are of one size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.errors import SpecError
from capacity_analysis.data.recipes import Told, differing, field_of, recipes, said, short, told
from capacity_analysis.data.table import Points

# What may vary along a curve: all that makes an adapter larger, and the rates, which are tuned at each size.
ALONG = (
    "trained_parameters", "adapter", "adapter.rank", "adapter.u", "adapter.groups", "adapter.vectors",
    "adapter.vector_length", "adapter.length", "adapter.blocks", "learning_rate", "warm_start.learning_rate",
)  # fmt: skip
# Fields whose values need no name beside them.
_PLAIN = ("method", "demonstrations", "adapter", "storage_dtype")
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
    """The curves of the trained rows, in the order of the table.

    A row that cannot have a field by which its curves are told apart belongs to each of them: an update of all
    weights continues the curves of every sharing.

    Args:
        points: rows of one question, one learning rate in each tuning.
        by: fields that tell curves apart; None: the method, and whatever else does.

    Raises:
        SpecError: cells of one curve differ in more than `by` names and the size; says in what.
    """
    models = points.frame["model"].fillna("")
    trained = (points.frame["trained_parameters"] > 0).to_numpy(dtype=bool)
    of_model = {m: np.flatnonzero(trained & (models == m).to_numpy(dtype=bool)) for m in dict.fromkeys(models[trained])}
    if by is not None:
        return _by(points, of_model, tuple(field_of(points, name) for name in by))
    methods = points.frame["method"]
    groups: dict[str, list[tuple[str, Rows]]] = {}
    for model, rows in of_model.items():
        for method in dict.fromkeys(methods.iloc[rows]):
            groups.setdefault(method, []).append((model, rows[(methods.iloc[rows] == method).to_numpy(dtype=bool)]))
    apart = {
        method: ("method", *dict.fromkeys(name for _, rows in found for name in telling(points, rows)))
        for method, found in groups.items()
    }
    made = [
        (model, _label(points, apart[method], values), rows)
        for method, found in groups.items()
        for model, own in found
        for values, rows in _split(_told(points, apart[method]), own).items()
    ]
    return _curves(points, made, list(dict.fromkeys(name for names in apart.values() for name in names)))


def _by(points: Points, of_model: Mapping[str, Rows], names: tuple[str, ...]) -> tuple[CurveRows, ...]:
    made = []
    shown = tuple(name for name in names if name == "method" or _varies(points, of_model.values(), name))
    for model, own in of_model.items():
        for values, rows in _split(_told(points, names), own).items():
            label = _label(points, shown, [value for name, value in zip(names, values, strict=True) if name in shown])
            further = telling(points, rows)
            if further:
                one = short(points, further[0])
                value = said(recipes(points)[rows[0]].get(further[0]))
                raise SpecError(
                    f"{points.source}: cells of {label or 'one curve'} differ in {', '.join(further)}, not in their "
                    f"size alone: name that in --by, or choose with --where {one}={value}"
                )
            made.append((model, label, rows))
    return _curves(points, made, list(names))


def telling(points: Points, rows: Rows) -> tuple[str, ...]:
    """The fields by which curves among some rows must be told apart; none if they are one curve.

    Where cells are of one size, the fewest fields that tell them apart are taken, and of those the ones that leave
    the fewest curves.
    """
    known = recipes(points)
    names = [name for name in differing(known[row] for row in rows) if name not in ("model", "split")]
    values = dict(zip(names, _told(points, names), strict=True))
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


def _varies(points: Points, groups: Iterable[Rows], name: str) -> bool:
    """Whether a field tells rows of one method and model apart."""
    field, methods = told(points, name), points.frame["method"]
    return any(
        _several(field, rows[(methods.iloc[rows] == method).to_numpy(dtype=bool)])
        for rows in groups
        for method in set(methods.iloc[rows])
    )


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


class _Any:
    """Stands for the value of a field that a row cannot have."""


_ANY = _Any()


def _agrees(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a is _ANY or a == b for a, b in zip(one, other, strict=True))


def _label(points: Points, names: Sequence[str], values: Sequence[Any]) -> str:
    return " ".join(
        said(value) if name in _PLAIN else f"{short(points, name)}={said(value)}"
        for name, value in zip(names, values, strict=True)
        if value is not _ANY and not (name in _PLAIN and value is None)
    )


def _curves(points: Points, made: Sequence[tuple[str, str, Rows]], names: Sequence[str]) -> tuple[CurveRows, ...]:
    """The curves with what tells them apart, by method, numbers by size and words by the alphabet."""
    fields = dict(zip(names, _told(points, names), strict=True))
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


def differ_in_one(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether one field alone tells two curves apart, by what both tell."""
    return len([name for name in first.keys() & second.keys() if first[name] != second[name]]) == 1
