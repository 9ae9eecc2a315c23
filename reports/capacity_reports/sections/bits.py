"""The smallest updates at their accuracy, what one method saves over another, and what single choices change."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from capacity_analysis.bits.cells import MeasuredCells
from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.bits.savings import AtSize, Saving
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import labels
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import legend, line_styles, log_axis, method_style, percent_axis
from capacity_reports.sources import ordered
from capacity_reports.views import Analysis, TaskCells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLACES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("demonstrations", "demonstrations"),
    Column("adapter", "adapter"),
    Column("storage_dtype", "dtype"),
    Column("sharing", "sharing"),
    Column("u", "u", "count"),
    Column("groups", "groups", "count"),
    Column("rank", "rank", "count"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("size", "size", "count"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("on_frontier", "frontier"),
    Column("membership", "member, %", "percent"),
    Column("seeds", "seeds", "count"),
)
_SAVINGS = (
    Column("model", "model"),
    Column("test", "curve"),
    Column("anchor", "over"),
    Column("size_ratio", "Bjøntegaard's ratio", "ratio", ends=("low", "high")),
    Column("low", "95 % low", "ratio"),
    Column("high", "95 % high", "ratio"),
    Column("accuracy_low", "from accuracy, %", "percent"),
    Column("accuracy_high", "to accuracy, %", "percent"),
    Column("remark", ""),
)
_AT_SIZE = (
    Column("model", "model"),
    Column("size", "size", "count"),
    Column("curve", "curve"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("tested", ""),
)
_RATES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("differs", "differs in"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("storage_dtype", "dtype"),
    Column("codes_bytes", "codes, bytes", "count"),
    Column("scale_bytes", "scales, bytes", "count"),
    Column("header_bytes", "header, bytes", "count"),
    Column("total_bytes", "total, bytes", "count"),
    Column("bits_per_parameter", "payload bits a parameter", "number"),
    Column("distortion", "distortion", "number"),
    Column("gaussian_limit", "Gaussian limit", "number"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("change", "change, points", "points", ends=("change_low", "change_high")),
    Column("change_low", "change, 95 % low", "points"),
    Column("change_high", "change, 95 % high", "points"),
)
_LEVEL = (
    Column("model", "model"),
    Column("method", "method"),
    Column("same", "else equal"),
    Column("level", "level"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
)
FACTORS = {"storage_dtype": "Precision", "sharing": "Sharing", "rank": "Rank"}


def frontier_section(analysis: Analysis) -> Section:
    """The section of frontier and savings, in bytes, or in parameters where bytes are not known."""
    blocks: list[Block] = []
    reasons: list[str] = []
    for in_bytes, in_parameters in zip(analysis.update_bytes, analysis.parameters, strict=True):
        found = in_parameters if isinstance(in_bytes, Absent) else in_bytes
        if isinstance(found, Absent):
            reasons.append(found.reason)
            continue
        task = str(found.task) if len(analysis.parameters) > 1 else ""
        for model in dict.fromkeys(str(p.known.get("model", "")) for p in found.places):
            if len({p.size for p in _on(found, model)}) > 1:
                blocks.append(_frontier(found, model, task))
            else:
                blocks.append(Text((f"{model or 'All rows'}: one size only, so there is no frontier to draw.",)))
        blocks += _savings(found.saved, found.unit, task)
        blocks.append(_intervals(found.found))
    if not blocks:
        return Section("frontier", "Frontier and savings", (), "; ".join(dict.fromkeys(reasons)))
    return Section("frontier", "Frontier and savings", tuple(blocks))


def bits_blocks(
    found: MeasuredCells,
    places: Sequence[FrontierPoint],
    saved: Sequence[Saving],
    equal: Sequence[AtSize],
    rates: Sequence[Mapping[str, Cell]],
) -> list[Block]:
    """Everything about the bits of one task without figures: all that `capacity bits` finds.

    Args:
        found: the measured cells.
        places: their places on the frontier.
        saved: the size of every curve over that of another at equal accuracy.
        equal: the accuracies of the curves at equal sizes.
        rates: a row a trained cell and dtype under the keys of the table, empty if updates were not stored anew.
    """
    title = f"Frontier of accuracy over {found.unit}, each model, method and demonstrations, the base free"
    blocks: list[Block] = [_rates(rates)] if rates else []
    blocks += [_places("frontier", title, places), *_savings(saved, found.unit, "")]
    if equal:
        blocks.append(_at_size(equal, found.unit))
    return [*blocks, _intervals(found)]


def _intervals(found: MeasuredCells) -> Text:
    return Text((f"Members, savings and accuracies at equal size: {found.method}.",))


def _rates(rates: Sequence[Mapping[str, Cell]]) -> Table:
    return Table(
        "rate-distortion",
        "Rate and distortion of the trained updates",
        _RATES,
        tuple(tuple(row[c.key] for c in _RATES) for row in rates),
        "Distortion: ‖stored − trained‖² / ‖trained‖²; the limit is Shannon's for Gaussian numbers at as many payload "
        "bits. Change: accuracy against the update as trained, paired by seed and item; intervals: "
        f"{'; '.join(dict.fromkeys(str(row['interval']) for row in rates))}.",
    )


def _at_size(equal: Sequence[AtSize], unit: str) -> Table:
    rows = tuple(
        (a.model, a.size, a.curve, e.value, e.low, e.high, "" if a.tested else "between tested sizes")
        for a in equal
        for e in [a.estimate]
    )
    intervals = labels(a.estimate for a in equal)
    note = f"On monotone curves, between tested sizes straight in the logarithm of the size. Intervals: {intervals}."
    return Table("equal-size", f"Accuracy at equal {unit}", _AT_SIZE, rows, note)


def _on(found: TaskCells, model: str) -> list[FrontierPoint]:
    return [p for p in found.places if str(p.known.get("model", "")) == model]


def _frontier(found: TaskCells, model: str, task: str) -> Figure:
    places = _on(found, model)

    def draw(axes: "Axes") -> None:
        for method in ordered([str(p.known["method"]) for p in places]):
            colour, marker, _ = method_style(method)
            own = [p for p in places if p.known["method"] == method]
            for on in sorted({p.on_frontier for p in own}, reverse=True):
                some = [p for p in own if p.on_frontier == on]
                axes.plot(
                    [p.size for p in some],
                    [p.accuracy for p in some],
                    ls="",
                    marker=marker,
                    color=colour,
                    mfc=colour if on else "none",
                    label=method if on else f"{method}, dominated",
                )
            seen = list(dict.fromkeys(p.known.get("demonstrations") for p in own))
            for shown, (line, _, _) in zip(seen, line_styles([f"{method} {s}" for s in seen]).values(), strict=True):
                best = [p for p in own if p.on_frontier and p.known.get("demonstrations") == shown]
                axes.step([p.size for p in best], [p.accuracy for p in best], where="post", color=line, lw=1)
        log_axis(axes, "x", f"update, {found.unit}")
        percent_axis(axes)
        legend(axes, 2)

    on = [p for p in places if p.on_frontier]
    words = "; ".join(f"{p.known['method']} {p.size:,.0f} {found.unit} {100 * p.accuracy:.1f} %" for p in on)
    where = ", ".join(x for x in (model, task) if x)
    name = slug("frontier", task, model)
    return Figure(
        name,
        f"Frontier{f', {where}' if where else ''}",
        "Filled: no update of the same method and demonstrations is at most as large and more accurate; the untrained "
        f"base is free. Intervals: {labels(p.estimate for p in places)}. Member: share of replicates on the frontier.",
        f"Frontier of accuracy over {found.unit}{f' on {where}' if where else ''}: "
        f"{words or 'no update beats the base'}.",
        _places(name, "Cells and their places", places),
        draw,
    )


def _places(name: str, title: str, places: Sequence[FrontierPoint]) -> Table:
    """The table of all cells with their place, and a column for each further field in which they differ."""
    usual = {column.key for column in _PLACES}
    further = dict.fromkeys(field for p in places for field in p.known if field not in usual)
    varying = [field for field in further if len({p.known.get(field) for p in places}) > 1]
    first = next(i for i, column in enumerate(_PLACES) if column.key == "trained_parameters")
    columns = (*_PLACES[:first], *(Column(field, field) for field in varying), *_PLACES[first:])
    note = f"Intervals: {labels(p.estimate for p in places)}."
    return Table(name, title, columns, tuple(_place(p, columns) for p in places), note)


def _place(p: FrontierPoint, columns: Sequence[Column]) -> tuple[Cell, ...]:
    measured: dict[str, Cell] = {
        "size": p.size,
        "accuracy": p.accuracy,
        "low": p.low,
        "high": p.high,
        "on_frontier": "on" if p.on_frontier else "",
        "membership": p.membership,
        "seeds": p.seeds,
    }
    return tuple(measured[c.key] if c.key in measured else p.known.get(c.key) for c in columns)


def _savings(saved: Sequence[Saving] | Absent, unit: str, task: str) -> list[Block]:
    """The table of savings, sft : grpo. Pairs that have no number for one and the same reason share a line."""
    if isinstance(saved, Absent):
        return [Text((f"Savings at equal accuracy: not available, {saved.reason}.",))]
    if not saved:
        return [Text(("Savings at equal accuracy: there is one curve only.",))]
    known = tuple(s for s in saved if s.size_ratio is not None)
    table = Table(
        slug("savings", task),
        f"Size at equal accuracy, {unit}{f', {task}' if task else ''}",
        _SAVINGS,
        tuple(tuple(getattr(s, c.key) for c in _SAVINGS) for s in known),
        "Bjøntegaard's delta on monotone curves: the ratio of sizes averaged over the accuracies that both reach. It "
        "is another quantity than the ratio of thresholds, which is at one target. Below 1× the first needs less.",
    )
    pairs: dict[tuple[str, str], list[str]] = {}
    for s in saved:
        if s.size_ratio is None:
            pairs.setdefault((s.model, s.remark), []).append(f"{s.test} : {s.anchor}")
    lines = tuple(_without_number(model, names, remark) for (model, remark), names in pairs.items())
    return [*([table] if known else []), *([Text(lines, bullets=len(lines) > 1)] if lines else [])]


def _without_number(model: str, pairs: Sequence[str], remark: str) -> str:
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    where = f"{model}: " if model else ""
    return f"{where}no size at equal accuracy for {', '.join(pairs[:3])}{more}: {remark}."


def ablation_section(analysis: Analysis) -> Section:
    """The section of what precision, sharing, rank, and u × groups change while all else is equal."""
    blocks: list[Block] = []
    for found in analysis.parameters:
        if isinstance(found, Absent):
            continue
        task = str(found.task) if len(analysis.parameters) > 1 else ""
        for factor in FACTORS:
            sets = _alike(found.places, factor)
            if sets:
                blocks.append(_levels(factor, sets, task))
        blocks += _grids(found.places, task)
    if not blocks:
        why = "no two configurations differ only in storage dtype, sharing or rank, and there is no grid of u × groups"
        return Section("ablations", "Ablations", (), why)
    return Section("ablations", "Ablations", tuple(blocks))


def _alike(places: Sequence[FrontierPoint], factor: str) -> list[tuple[str, list[FrontierPoint]]]:
    """Groups of rows that differ in nothing but the factor; a rank also changes the count, and the rate may follow."""
    free = {factor, "learning_rate", *(("trained_parameters",) if factor == "rank" else ())}
    groups: dict[tuple[tuple[str, str | int | float], ...], list[FrontierPoint]] = {}
    for p in places:
        key = tuple(sorted((k, v) for k, v in p.known.items() if k not in free))
        if factor in p.known:
            groups.setdefault(key, []).append(p)
    found = []
    for key, members in groups.items():
        if len({p.known[factor] for p in members}) > 1:
            shown = [
                f"{k.replace('_', ' ')} {v}" for k, v in key if k not in ("model", "method", "demonstrations", "task")
            ]
            found.append((", ".join(shown), members))
    return found


def _levels(factor: str, sets: Sequence[tuple[str, list[FrontierPoint]]], task: str) -> Figure:
    levels = list(dict.fromkeys(str(p.known[factor]) for _, members in sets for p in members))
    if factor == "rank":
        levels.sort(key=int)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            p.known.get("model"),
            p.known["method"],
            same,
            str(p.known[factor]),
            p.accuracy,
            p.low,
            p.high,
            p.seeds,
        )
        for same, members in sets
        for p in members
    )

    def draw(axes: "Axes") -> None:
        names = [f"{members[0].known['method']} {place}" for place, (_, members) in enumerate(sets)]
        for (_, members), (colour, marker, style) in zip(sets, line_styles(names).values(), strict=True):
            own = sorted(members, key=lambda p: levels.index(str(p.known[factor])))
            x = [levels.index(str(p.known[factor])) for p in own]
            axes.plot(
                x,
                [p.accuracy for p in own],
                color=colour,
                marker=marker,
                ls=style,
                lw=1,
                label=str(own[0].known["method"]),
            )
            for place, p in zip(x, own, strict=True):
                if p.low is not None and p.high is not None:
                    axes.plot([place, place], [p.low, p.high], color=colour, lw=1)
        axes.set_xticks(range(len(levels)), levels)
        percent_axis(axes)
        legend(axes, 3)

    name = slug("ablation", factor, task)
    words = "; ".join(f"{r[1]} {r[3]} {100 * float(r[4] or 0):.1f} %" for r in rows[:12])
    return Figure(
        name,
        FACTORS[factor],
        "Lines join configurations that are equal in everything else. Bars: "
        f"{labels(p.estimate for _, members in sets for p in members)}.",
        f"Accuracy by {factor.replace('_', ' ')}: {words}{' …' if len(rows) > 12 else ''}.",
        Table(name, f"Accuracy by {factor.replace('_', ' ')}", _LEVEL, rows),
        draw,
    )


def _grids(places: Sequence[FrontierPoint], task: str) -> list[Block]:
    """The heat maps of accuracy over u × groups, one a model and method, where both vary."""
    found: list[Block] = []
    tiny = [p for p in places if {"u", "groups"} <= set(p.known)]
    for model, method in dict.fromkeys((str(p.known.get("model", "")), str(p.known["method"])) for p in tiny):
        own = [p for p in tiny if (str(p.known.get("model", "")), p.known["method"]) == (model, method)]
        cells = {(int(p.known["u"]), int(p.known["groups"])): p for p in own}
        us, groups = {u for u, _ in cells}, {g for _, g in cells}
        if len(cells) < len(own) or min(len(us), len(groups)) < 2 or len(cells) <= max(len(us), len(groups)):
            continue  # cells that share hardly a row or a column are no grid
        found.append(_heat(cells, slug("u-groups", task, model, method), f"u × groups, {model} {method}".strip()))
    return found


def _heat(cells: dict[tuple[int, int], FrontierPoint], name: str, title: str) -> Figure:
    us, groups = sorted({u for u, _ in cells}), sorted({g for _, g in cells})

    def draw(axes: "Axes") -> None:
        import numpy as np
        import seaborn as sns

        grid = np.array([[cells[u, g].accuracy * 100 if (u, g) in cells else np.nan for g in groups] for u in us])
        sns.heatmap(
            grid,
            ax=axes,
            annot=True,
            fmt=".1f",
            cmap="cividis",
            xticklabels=groups,
            yticklabels=us,
            mask=np.isnan(grid),
            cbar_kws={"label": "accuracy, %"},
            linewidths=0.5,
            annot_kws={"size": 8},
        )
        axes.set_xlabel("groups")
        axes.set_ylabel("u")

    rows = tuple(
        (u, g, int(p.known["trained_parameters"]), p.accuracy, p.low, p.high, p.seeds)
        for (u, g), p in sorted(cells.items())
    )
    columns = (
        Column("u", "u", "count"),
        Column("groups", "groups", "count"),
        Column("trained_parameters", "trained parameters", "count"),
        Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
        Column("low", "95 % low", "percent"),
        Column("high", "95 % high", "percent"),
        Column("seeds", "seeds", "count"),
    )
    words = "; ".join(f"u {u}, {g} groups {100 * p.accuracy:.1f} %" for (u, g), p in sorted(cells.items()))
    return Figure(
        name,
        title,
        "Accuracy of each tested pair; empty cells were not tested. "
        f"Intervals: {labels(p.estimate for p in cells.values())}.",
        f"Accuracy over u and groups: {words}.",
        Table(name, title, columns, rows),
        draw,
    )
