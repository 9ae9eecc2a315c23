"""Two sources side by side: the paired differences of accuracy at every configuration that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capacity.errors import DataError
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.intervals import Interval, difference_interval
from capacity_analysis.types import Array
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, legend, log_axis, method_style
from capacity_reports.sources import Source, attempt, ordered
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Key = tuple[
    Cell, ...
]  # model ("" if each source has one), task, demonstrations, method, adapter, trained parameters, dtype
_COLUMNS = (
    Column("model", "model"),
    Column("method", "method"),
    Column("demonstrations", "demonstrations"),
    Column("adapter", "adapter"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("storage_dtype", "dtype"),
    Column("before", "first, %", "percent"),
    Column("after", "second, %", "percent"),
    Column("difference", "difference, points", "points"),
    Column("low", "95 % low", "points"),
    Column("high", "95 % high", "points"),
    Column("pairs", "paired seeds", "count"),
    Column("items", "items", "count"),
    Column("remark", ""),
)


@dataclass(frozen=True)
class Pair:
    """One configuration in both sources, with the interval of second − first or why there is none."""

    key: Key
    before: float
    after: float
    interval: Interval | Absent


def paired_section(first: Analysis, second: Analysis) -> Section:
    """The section of differences, second − first, paired by seed and item."""
    a, b = first.source, second.source
    name = slug("differences", b.name)
    title = f"Differences: {b.name} − {a.name}"
    found = attempt(lambda: differences(a, b))
    if isinstance(found, Absent):
        return Section(name, title, (), found.reason)
    blocks: list[Block] = [Text((_verdict(a, b, found),), strong=True), *_figures(name, a, b, found)]
    changes = _what_differs(a, b)
    if changes:
        blocks += [Text(("What differs between the two:",)), Text(changes, bullets=True)]
    blocks.append(
        Text(
            (
                "Each interval is for fresh seeds and items and stands alone: of twenty configurations "
                "without a difference one shows "
                "one. Whether a change made the curve worse is decided by `capacity check`.",
            )
        )
    )
    return Section(name, title, tuple(blocks))


def differences(first: Source, second: Source) -> list[Pair]:
    """The differences at every configuration that both sources have.

    Raises:
        DataError: the sources have no configuration in common, or one has no points.
    """
    for source in (first, second):
        if isinstance(source.points, Absent):
            raise DataError(f"{source.name}: {source.points.reason}")
    assert not isinstance(first.points, Absent)
    assert not isinstance(second.points, Absent)
    same_model = set(first.points.frame["model"].dropna()) == set(second.points.frame["model"].dropna())
    one, two = (_rows(points, with_model=same_model) for points in (first.points, second.points))
    if not same_model and any(p.frame["model"].nunique() > 1 for p in (first.points, second.points)):
        raise DataError(
            "the two hold different models, and one of them several: their runs cannot be told apart in pairs"
        )
    common = [key for key in one if key in two]
    if not common:
        raise DataError(
            f"{first.name} and {second.name} have no configuration in common (method, adapter, size, dtype)"
        )
    rank = ordered([str(key[3]) for key in common])
    common.sort(key=lambda key: (str(key[0]), rank.index(str(key[3])), float(key[5] or 0)))
    return [_pair(key, first.points, one[key], second.points, two[key]) for key in common]


def _rows(points: Points, *, with_model: bool) -> dict[Key, pd.Index]:
    """The labels of the rows of each configuration."""
    frame = points.frame[reported_rows(points)]
    columns = ("model", "task", "demonstrations", "method", "adapter", "trained_parameters", "storage_dtype")
    trained = frame[frame["trained_parameters"] > 0]
    found: dict[Key, pd.Index] = {}
    for key, rows in trained.groupby(list(columns), dropna=False, sort=False):
        values = tuple(None if pd.isna(v) else v for v in key)
        found[(values[0] if with_model else "", *values[1:5], int(values[5] or 0), values[6])] = rows.index
    return found


def _pair(key: Key, a: Points, rows_a: pd.Index, b: Points, rows_b: pd.Index) -> Pair:
    before, after = (float(p.frame.loc[rows, "accuracy"].mean()) for p, rows in ((a, rows_a), (b, rows_b)))
    return Pair(key, before, after, _interval(a, rows_a, b, rows_b))


def _interval(a: Points, rows_a: pd.Index, b: Points, rows_b: pd.Index) -> Interval | Absent:
    if a.outcomes is None or b.outcomes is None:
        return Absent("no per-item outcomes")
    first, second = _by_seed(a, rows_a), _by_seed(b, rows_b)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return Absent("no seed in common")
    asked = [
        {name for name, x in zip(p.items, rows[s], strict=True) if not np.isnan(x)}
        for p, rows in ((a, first), (b, second))
        for s in seeds
    ]
    if any(items != asked[0] for items in asked):
        return Absent("answered different items")
    columns = [[p.items.index(name) for name in sorted(asked[0])] for p in (a, b)]
    one = np.array([first[s][columns[0]] for s in seeds])
    two = np.array([second[s][columns[1]] for s in seeds])
    return difference_interval(two, one)


def _by_seed(points: Points, rows: pd.Index) -> Mapping[int, Array]:
    assert points.outcomes is not None
    seeds = points.frame.loc[rows, "seed"]
    return {int(seed): points.outcomes[row] for row, seed in zip(rows, seeds, strict=True) if not pd.isna(seed)}


def _verdict(a: Source, b: Source, found: Sequence[Pair]) -> str:
    known = [p for p in found if isinstance(p.interval, Interval)]
    higher = sum(p.interval.low > 0 for p in known if isinstance(p.interval, Interval))
    lower = sum(p.interval.high < 0 for p in known if isinstance(p.interval, Interval))
    text = (
        f"Of {len(found)} common configurations {b.name} is higher than {a.name} in {higher} and lower in {lower} by "
        "intervals that exclude 0"
    )
    if len(known) < len(found):
        text += f"; {len(found) - len(known)} cannot be paired"
    return text + "."


def _what_differs(a: Source, b: Source) -> tuple[str, ...]:
    if not a.runs or not b.runs:
        return ()
    one, two = a.runs[0].fingerprint, b.runs[0].fingerprint
    lines = [] if one == two else [f"environment: {one.difference(two)}"]
    for name, of in (
        ("model", lambda r: r.spec.model),
        ("task", lambda r: r.spec.task.label),
        ("training", lambda r: r.spec.training.model_dump_json(exclude={"learning_rate"})),
        ("learning rates", lambda r: f"{r.spec.training.learning_rate:g}"),
    ):
        values = [sorted({of(r) for r in source.trained}) for source in (a, b)]
        if values[0] != values[1]:
            lines.append(f"{name}: {', '.join(values[0])} against {', '.join(values[1])}")
    return tuple(lines)


def _figures(name: str, a: Source, b: Source, found: Sequence[Pair]) -> list[Block]:
    blocks: list[Block] = []
    for model in dict.fromkeys(str(p.key[0] or "") for p in found):
        own = [p for p in found if str(p.key[0] or "") == model]
        rows = tuple(_row(p) for p in own)

        def draw(axes: "Axes", own: Sequence[Pair] = own) -> None:
            for place, method in enumerate(methods := ordered([str(p.key[3]) for p in own])):
                colour, marker, _ = method_style(method)
                shift = 1.05 ** (place - (len(methods) - 1) / 2)
                some = [p for p in own if p.key[3] == method]
                axes.plot(
                    [float(p.key[5] or 0) * shift for p in some],
                    [100 * (p.after - p.before) for p in some],
                    ls="",
                    marker=marker,
                    color=colour,
                    label=method,
                )
                for p in some:
                    if isinstance(p.interval, Interval):
                        x = float(p.key[5] or 0) * shift
                        axes.plot([x, x], [100 * p.interval.low, 100 * p.interval.high], color=colour, lw=1)
            axes.axhline(0, color=FAINT, lw=1)
            log_axis(axes, "x", "trained parameters")
            axes.set_ylabel("difference of accuracy, points")
            legend(axes, 3)

        words = "; ".join(f"{p.key[3]} {p.key[5]:,} {100 * (p.after - p.before):+.1f}" for p in own)
        where = f", {model}" if model else ""
        blocks.append(
            Figure(
                slug(name, model),
                f"{b.name} − {a.name}{where}",
                "Accuracy of the second minus the first, paired by seed and item; bars are 95 % intervals "
                "for fresh seeds and items.",
                f"Difference of accuracy in points, {b.name} minus {a.name}{where}: {words}.",
                Table(slug(name, model), "Paired differences", _COLUMNS, rows),
                draw,
            )
        )
    return blocks


def _row(p: Pair) -> tuple[Cell, ...]:
    model, _, demonstrations, method, adapter, size, dtype = p.key
    i = p.interval
    ends = (None, None, None, None, i.reason) if isinstance(i, Absent) else (i.low, i.high, i.seeds, i.items, "")
    difference = p.after - p.before if isinstance(i, Absent) else i.estimate
    return (model or None, method, demonstrations, adapter, size, dtype, p.before, p.after, difference, *ends)
