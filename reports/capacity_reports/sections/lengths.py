"""Description lengths: bits of demonstrations, rewards and updates, side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.descriptions import (
    QUANTITIES,
    CellLengths,
    Description,
    by_demonstrations,
    describe,
)
from capacity_analysis.lengths.quantities import Category, Measured, Quantity
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, joined, legend, line_styles, log_axis, numbers
from capacity_reports.sources import Lookups, attempt, ordered
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME, _TITLE = "description-lengths", "Description lengths"
_CATEGORIES: dict[Category, str] = {
    "held-out": "Held-out demonstrations",
    "first pass": "Demonstrations of the first pass",
    "rewards": "Rewards",
    "update": "Update",
}
_PAYLOAD, _ALL = "payload", "all methods"
# What is drawn: the key of the quantity, and its name in the legend.
_DRAWN = (
    ("excess_bits", "bits learnt (excess)"),
    ("reward_live_bits", "rewards, live groups (a cap)"),
    ("payload_bits", _PAYLOAD),
)
# What every table says of a cell, and what it says beside where this does not tell all cells apart.
_COLUMNS = (
    Column("method", "method"),
    Column("adapter", "adapter"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("storage_dtype", "dtype"),
)
_DIFFERS = Column("differs", "what differs")


def lengths_section(analysis: Analysis, lookups: Lookups) -> Section:
    """The section of a source's description lengths, or why it has none."""
    source = analysis.source
    if not source.trained:
        why = "a points table holds no code lengths" if source.study is None else "no trained run is complete"
        return Section(_NAME, _TITLE, (), why)
    found = attempt(
        lambda: describe(source.trained, train_items=lookups.train_items, configurations=lookups.configurations)
    )
    return Section(_NAME, _TITLE, (), found.reason) if isinstance(found, Absent) else section_of(found)


def section_of(found: Description) -> Section:
    """Tables of all quantities, and a chart of three of them against the size."""
    blocks: list[Block] = [Text(found.warnings, bullets=True), Text((found.intervals,))]
    for model in dict.fromkeys(one.model for one in found.cells):
        styles = by_demonstrations([one for one in found.cells if one.model == model])
        for style, cells in styles.items():
            where = f"{model}, {style}" if len(styles) > 1 else model
            figure = _chart(where, cells, found.intervals)
            tables = [_table(where, category, cells) for category in _CATEGORIES]
            blocks += [block for block in (figure, *tables) if block is not None]
    return Section(_NAME, _TITLE, (*blocks, *_reasons(found), _all(found)))


def _table(where: str, category: Category, cells: Sequence[CellLengths]) -> Table | None:
    """The cells in which something of a category was measured; None if there are none."""
    quantities = [q for q in QUANTITIES if q.category == category and any(_measured(one, q) for one in cells)]
    shown = [one for one in cells if any(_measured(one, q) for q in quantities)]
    if not shown:
        return None
    differs = any(one.differs for one in shown)
    columns = [*_COLUMNS, *([_DIFFERS] if differs else []), Column("seeds", "seeds", "count")]
    for q in quantities:
        low, high = f"{q.key}_low", f"{q.key}_high"
        columns.append(Column(q.key, f"{q.words}, {q.unit}", "number", ends=(low, high)))
        columns += [Column(low, f"{q.words}, 95 % low", "number"), Column(high, f"{q.words}, 95 % high", "number")]
    return Table(
        slug("lengths", category, where),
        f"{_CATEGORIES[category]}, {where}",
        tuple(columns),
        tuple(
            (
                *_head(one),
                *([one.differs] if differs else []),
                len(one.seeds),
                *(value for q in quantities for value in _with_ends(one, q)),
            )
            for one in shown
        ),
        "Means over seeds with their intervals. – : not measured, or does not apply.",
    )


def _head(one: CellLengths) -> tuple[Cell, ...]:
    return one.method, one.adapter, one.trained_parameters, one.storage_dtype


def _measured(one: CellLengths, quantity: Quantity) -> bool:
    return isinstance(one.values[quantity.key], Measured)


def _with_ends(one: CellLengths, quantity: Quantity) -> tuple[Cell, Cell, Cell]:
    value = one.values[quantity.key]
    return (value.estimate, value.low, value.high) if isinstance(value, Measured) else (None, None, None)


def _all(found: Description) -> Table:
    """Every quantity of every cell in a row of its own, for programs."""
    columns = (
        Column("model", "model"),
        *_COLUMNS,
        Column("demonstrations", "demonstrations"),
        _DIFFERS,
        Column("cell", "cell"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("estimate", "estimate", "number"),
        Column("low", "95 % low", "number"),
        Column("high", "95 % high", "number"),
        Column("n", "seeds", "count"),
        Column("at_least", "at least"),
        Column("reason", "not measured"),
    )
    rows: list[tuple[Cell, ...]] = []
    for one in found.cells:
        head = (one.model, *_head(one), one.demonstrations, one.differs, one.cell.identity)
        for q in QUANTITIES:
            v = one.values[q.key]
            if isinstance(v, Measured):
                rows.append((*head, q.key, q.unit, v.estimate, v.low, v.high, v.n, "≥" if v.at_least else "", ""))
            else:
                rows.append((*head, q.key, q.unit, None, None, None, None, "", v.reason))
    return Table(_NAME, "All quantities with intervals", columns, tuple(rows), exported_only=True)


def _reasons(found: Description) -> list[Block]:
    """Why quantities are absent, and which are lower bounds."""
    reasons: dict[str, list[str]] = {}
    methods: dict[str, list[str]] = {}
    for one in found.cells:
        for q in QUANTITIES:
            value = one.values[q.key]
            if isinstance(value, Absent) and not value.reason.startswith("does not apply"):
                reasons.setdefault(value.reason, []).append(q.words)
                methods.setdefault(value.reason, []).append(one.method)
    lines = [
        f"Not measured for {joined(ordered(methods[reason]))}, {reason}: {'; '.join(dict.fromkeys(words))}."
        for reason, words in reasons.items()
    ]
    floors: dict[tuple[str, str], list[int]] = {}
    for one in found.cells:
        for q in QUANTITIES:
            if getattr(one.values[q.key], "at_least", False):
                floors.setdefault((q.words, one.method), []).append(one.trained_parameters)
    lines += [
        f"A lower bound only, because the loss is still above ε at the end: {words} of {method} with "
        f"{joined([f'{size:,}' for size in dict.fromkeys(sizes)])} parameters."
        for (words, method), sizes in floors.items()
    ]
    return [Text(tuple(lines), bullets=True)] if lines else []


class _Point(NamedTuple):
    """One value of the chart, a row of its data."""

    quantity: str
    method: str
    differs: str
    trained_parameters: int
    estimate: float
    low: float | None
    high: float | None

    @property
    def line(self) -> str:
        """What the line through it shows: "grpo: payload"."""
        return f"{' '.join(filter(None, (self.method, self.differs)))}: {self.quantity}"


def _points(cells: Sequence[CellLengths]) -> list[_Point]:
    several = len({one.storage_dtype for one in cells}) > 1
    found = []
    for key, name in _DRAWN:
        for one in cells:
            value = one.values[key]
            if isinstance(value, Measured) and not (key == "reward_live_bits" and one.method == "random-reward"):
                differs = ", ".join(filter(None, (one.storage_dtype if several else "", one.differs)))
                size = one.trained_parameters
                found.append(_Point(name, one.method, differs, size, value.estimate, value.low, value.high))
    return found


def _once(points: Sequence[_Point]) -> list[_Point]:
    """The points to draw: a payload that is the same for every method is one line instead of several on one another."""
    payload = [p for p in points if p.quantity == _PAYLOAD]
    sizes = {p.trained_parameters for p in payload}
    if len({p.line for p in payload}) < 2 or len({(p.trained_parameters, p.estimate) for p in payload}) > len(sizes):
        return list(points)
    shared = {p.trained_parameters: p._replace(method=_ALL, differs="") for p in payload}
    return [*(p for p in points if p.quantity != _PAYLOAD), *shared.values()]


def _chart(where: str, cells: Sequence[CellLengths], intervals: str) -> Figure | None:
    points = _once(_points(cells))
    if not points:
        return None
    marks = {name: mark for (_, name), mark in zip(_DRAWN, ("-", "--", ":"), strict=True)}

    def draw(axes: "Axes") -> None:
        lines = list(dict.fromkeys(p.line for p in points))
        styles = line_styles([line for line in lines if not line.startswith(_ALL)])
        for line in lines:
            own = sorted((p for p in points if p.line == line), key=lambda p: p.trained_parameters)
            colour, marker, _ = styles.get(line, (FAINT, "d", ""))
            axes.plot(
                numbers(p.trained_parameters for p in own),
                numbers(p.estimate for p in own),
                color=colour,
                marker=marker,
                ms=4,
                ls=marks[own[0].quantity],
                label=line,
            )
            for p in own:
                if p.low is not None and p.high is not None:
                    axes.plot([p.trained_parameters] * 2, [p.low, p.high], color=colour, lw=1)
        log_axis(axes, "x", "trained parameters")
        if all(p.estimate > 0 and (p.low is None or p.low > 0) for p in points):
            log_axis(axes, "y", "bits")
        else:
            axes.set_yscale("symlog", linthresh=10)
            axes.set_ylabel("bits")
        axes.margins(y=0.08)
        legend(axes, 1)

    name = slug("bits-against-size", where)
    words = "; ".join(f"{p.method} at {p.trained_parameters:,} {p.quantity} {p.estimate:,.3g}" for p in points[:9])
    columns = (
        Column("quantity", "quantity"),
        Column("method", "method"),
        _DIFFERS,
        Column("trained_parameters", "trained parameters", "count"),
        Column("estimate", "bits", "number"),
        Column("low", "95 % low", "number"),
        Column("high", "95 % high", "number"),
    )
    return Figure(
        name,
        f"Bits against size, {where}",
        "Three different quantities, not to be divided by one another: bits learnt from demonstrations, bits that "
        "rewards can carry at most, bits of the update's file. Where a value or an interval reaches 0, the scale is "
        f"linear within ±10. {intervals}",
        f"Bits against trained parameters on {where}: {words}{' …' if len(points) > 9 else ''}.",
        Table(name, "Bits by size", columns, tuple(points)),
        draw,
        height=4.4,
    )
