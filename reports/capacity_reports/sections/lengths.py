"""Description lengths: bits of demonstrations, rewards and updates, side by side."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.descriptions import (
    QUANTITIES,
    DescribedArm,
    Description,
    Measured,
    by_demonstrations,
    describe,
)
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, joined, legend, log_axis, method_style, numbers
from capacity_reports.sources import Lookups, attempt, ordered
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CATEGORIES = {"demonstrations": "Demonstrations", "rewards": "Rewards", "update": "Update"}
_PAYLOAD, _ALL = "payload", "all methods"
# What is drawn: quantity, how it is named in the key.
_DRAWN = (
    ("excess_bits", "bits learnt (excess)"),
    ("reward_live_bits", "rewards, live groups (a cap)"),
    ("payload_bits", _PAYLOAD),
)


def lengths_section(analysis: Analysis, lookups: Lookups) -> Section:
    """The section of description lengths: tables of all quantities, and a chart of three of them against the size."""
    source = analysis.source
    if not source.trained:
        why = "a points table holds no code lengths" if source.study is None else "no trained run is complete"
        return Section("description-lengths", "Description lengths", (), why)
    found = attempt(
        lambda: describe(source.trained, train_items=lookups.train_items, configurations=lookups.configurations)
    )
    if isinstance(found, Absent):
        return Section("description-lengths", "Description lengths", (), found.reason)
    blocks: list[Block] = [Text(found.warnings, bullets=True)]
    for model in dict.fromkeys(arm.model for arm in found.arms):
        styles = by_demonstrations([arm for arm in found.arms if arm.model == model])
        for style, arms in styles.items():
            where = f"{model}, {style}" if len(styles) > 1 else model
            figure = _chart(where, arms)
            if figure is not None:
                blocks.append(figure)
            blocks += [_wide(where, category, arms) for category in _CATEGORIES if _applies(category, arms)]
    blocks += _reasons(found)
    blocks.append(_long(found))
    return Section("description-lengths", "Description lengths", tuple(blocks))


def _applies(category: str, arms: Sequence[DescribedArm]) -> bool:
    keys = [q.key for q in QUANTITIES if q.category == category]
    return any(isinstance(arm.values[key], Measured) for arm in arms for key in keys)


def _wide(where: str, category: str, arms: Sequence[DescribedArm]) -> Table:
    quantities = [
        q for q in QUANTITIES if q.category == category and any(isinstance(a.values[q.key], Measured) for a in arms)
    ]
    shown = [a for a in arms if any(isinstance(a.values[q.key], Measured) for q in quantities)]
    columns = (
        Column("method", "method"),
        Column("trained_parameters", "trained parameters", "count"),
        Column("seeds", "seeds", "count"),
        *(Column(q.key, f"{q.words}, {q.unit}", "number") for q in quantities),
    )
    rows = tuple(
        (a.method, a.trained_parameters, len(a.seeds), *(_estimate(a, q.key) for q in quantities)) for a in shown
    )
    return Table(
        slug("lengths", category, where),
        f"{_CATEGORIES[category]}, {where}",
        columns,
        rows,
        "Means over seeds; intervals are in the exported table description-lengths. – : not measured, or "
        "does not apply.",
    )


def _estimate(arm: DescribedArm, key: str) -> float | None:
    value = arm.values[key]
    return value.estimate if isinstance(value, Measured) else None


def _long(found: Description) -> Table:
    columns = (
        Column("model", "model"),
        Column("method", "method"),
        Column("demonstrations", "demonstrations"),
        Column("adapter", "adapter"),
        Column("trained_parameters", "trained parameters", "count"),
        Column("storage_dtype", "dtype"),
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
    for arm in found.arms:
        head = (arm.model, arm.method, arm.demonstrations, arm.adapter, arm.trained_parameters, arm.storage_dtype)
        for q in QUANTITIES:
            v = arm.values[q.key]
            if isinstance(v, Measured):
                rows.append((*head, q.key, q.unit, v.estimate, v.low, v.high, v.n, "≥" if v.at_least else "", ""))
            else:
                rows.append((*head, q.key, q.unit, None, None, None, None, "", v.reason))
    return Table("description-lengths", "All quantities with intervals", columns, tuple(rows), exported_only=True)


def _reasons(found: Description) -> list[Block]:
    reasons: dict[str, list[str]] = {}
    methods: dict[str, list[str]] = {}
    for arm in found.arms:
        for q in QUANTITIES:
            value = arm.values[q.key]
            if isinstance(value, Absent) and not value.reason.startswith("does not apply"):
                reasons.setdefault(value.reason, []).append(q.words)
                methods.setdefault(value.reason, []).append(arm.method)
    lines = [
        f"Not measured for {joined(ordered(methods[reason]))}, {reason}: {'; '.join(dict.fromkeys(words))}."
        for reason, words in reasons.items()
    ]
    floors = sorted(
        {q.words for arm in found.arms for q in QUANTITIES if getattr(arm.values[q.key], "at_least", False)}
    )
    if floors:
        lines.append(f"Lower bounds only (the loss is still above ε at the end): {', '.join(floors)} of some arms.")
    return [Text(tuple(lines), bullets=True)] if lines else []


def _once(rows: Sequence[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """The lines to draw: a payload that is the same for every method is one line instead of several on one another."""
    payload = [r for r in rows if r[0] == _PAYLOAD]
    if len({r[1] for r in payload}) < 2 or len({r[2:4] for r in payload}) > len({r[2] for r in payload}):
        return list(rows)
    shared = {r[2]: (_PAYLOAD, _ALL, *r[2:]) for r in payload}
    return [*(r for r in rows if r[0] != _PAYLOAD), *shared.values()]


def _chart(where: str, arms: Sequence[DescribedArm]) -> Figure | None:
    rows: list[tuple[Cell, ...]] = []
    for key, name in _DRAWN:
        for arm in arms:
            value = arm.values[key]
            if isinstance(value, Measured) and not (key == "reward_live_bits" and arm.method == "random-reward"):
                rows.append((name, arm.method, arm.trained_parameters, value.estimate, value.low, value.high))
    if not rows:
        return None
    rows = _once(rows)
    marks = {name: mark for (_, name), mark in zip(_DRAWN, ("-", "--", ":"), strict=True)}

    def draw(axes: "Axes") -> None:
        for name, method in dict.fromkeys((r[0], r[1]) for r in rows):
            colour, marker, _ = (FAINT, "d", "") if method == _ALL else method_style(str(method))
            own = sorted((r for r in rows if r[:2] == (name, method)), key=lambda r: float(r[2] or 0))
            axes.plot(
                numbers(r[2] for r in own),
                numbers(r[3] for r in own),
                color=colour,
                marker=marker,
                ms=4,
                ls=marks[str(name)],
                label=f"{method}: {name}",
            )
            for r in own:
                if r[4] is not None and r[5] is not None:
                    axes.plot(numbers([r[2], r[2]]), numbers([r[4], r[5]]), color=colour, lw=1)
        log_axis(axes, "x", "trained parameters")
        if all(low > 0 for r in rows for low in numbers([r[3], r[4]]) if not math.isnan(low)):
            log_axis(axes, "y", "bits")
        else:
            axes.set_yscale("symlog", linthresh=10)
            axes.set_ylabel("bits")
        axes.margins(y=0.08)
        legend(axes, 1)

    name = slug("bits-against-size", where)
    words = "; ".join(f"{r[1]} at {r[2]:,} {r[0]} {r[3]:,.3g}" for r in rows[:9])
    columns = (
        Column("quantity", "quantity"),
        Column("method", "method"),
        Column("trained_parameters", "trained parameters", "count"),
        Column("estimate", "bits", "number"),
        Column("low", "95 % low", "number"),
        Column("high", "95 % high", "number"),
    )
    return Figure(
        name,
        f"Bits against size, {where}",
        "Three different quantities, not to be divided by one another: bits learnt from demonstrations, "
        "bits that rewards can carry "
        "at most, bits of the update's file. Where a value or an interval reaches 0, the scale is linear within ±10.",
        f"Bits against trained parameters on {where}: {words}{' …' if len(rows) > 9 else ''}.",
        Table(name, "Bits by size", columns, tuple(rows)),
        draw,
        height=4.4,
    )
