"""Two sources side by side: the paired difference of accuracy at every cell that both have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity.errors import DataError
from capacity.runs.mixed import bases
from capacity_analysis.compare.paired import CellPair, Paired, paired
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import labels
from capacity_analysis.words import minus
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, legend, log_axis, method_style
from capacity_reports.sources import Source, attempt, ordered
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def paired_section(first: Analysis, second: Analysis) -> Section:
    """The section of the differences second − first, paired by seed and item."""
    a, b = first.source, second.source
    name = slug("differences", b.name)
    title = f"Differences: {b.name} − {a.name}"
    found = attempt(lambda: differences(a, b))
    if isinstance(found, Absent):
        return Section(name, title, (), found.reason)
    blocks: list[Block] = [Text((_verdict(a, b, found),), strong=True), *_figures(name, a, b, found.pairs)]
    for intro, lines in (
        ("What differs between the two:", _what_differs(a, b)),
        ("Not matched, because one of the two has several:", found.unclear),
    ):
        if lines:
            blocks += [Text((intro,)), Text(lines, bullets=True)]
    blocks.append(
        Text(
            (
                "Each interval stands alone: of twenty cells without a difference one shows one. Whether a change "
                "made the curve worse is decided by `capacity check`.",
            )
        )
    )
    return Section(name, title, tuple(blocks))


def differences(first: Source, second: Source) -> Paired:
    """The cells that both sources have, in pairs.

    Raises:
        DataError: the sources have nothing in common, or one of them has no points.
    """
    if isinstance(first.points, Absent):
        raise DataError(f"{first.name}: {first.points.reason}")
    if isinstance(second.points, Absent):
        raise DataError(f"{second.name}: {second.points.reason}")
    return paired(first.points, second.points)


def _verdict(a: Source, b: Source, found: Paired) -> str:
    """Counts sides; a pair with one seed takes none."""
    several = [p.estimate for p in found.pairs if p.estimate.over is not None and p.estimate.seeds > 1]
    higher, lower = (sum(e.sign == side for e in several) for side in (1, -1))
    text = (
        f"Of {len(found.pairs)} common cells {b.name} is higher than {a.name} in {higher} and lower in {lower} by "
        "intervals that exclude 0"
    )
    one = sum(p.estimate.over is not None and p.estimate.seeds == 1 for p in found.pairs)
    if one:
        text += f"; {one} have one seed in common, so nothing is claimed of them"
    if len(several) + one < len(found.pairs):
        text += f"; {len(found.pairs) - len(several) - one} cannot be paired"
    return text + "."


def _what_differs(a: Source, b: Source) -> tuple[str, ...]:
    if not a.runs or not b.runs:
        return ()
    one, two = a.runs[0].fingerprint, b.runs[0].fingerprint
    lines = [] if one == two else [f"environment: {one.difference(two)}"]
    here, there = bases(a.runs), bases(b.runs)
    lines += [f"weights of {model}" for model in here if model in there and here[model].keys() != there[model].keys()]
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


def _figures(name: str, a: Source, b: Source, found: Sequence[CellPair]) -> list[Block]:
    same_model = all(p.first.model == p.second.model for p in found)
    blocks: list[Block] = []
    for model in dict.fromkeys(p.first.model or "" for p in found) if same_model else [""]:
        own = [p for p in found if not same_model or (p.first.model or "") == model]
        rows = tuple(_row(p, model) for p in own)

        def draw(axes: "Axes", own: Sequence[CellPair] = own) -> None:
            for place, method in enumerate(methods := ordered([p.first.method for p in own])):
                colour, marker, _ = method_style(method)
                shift = 1.05 ** (place - (len(methods) - 1) / 2)
                some = [(p.first.trained_parameters * shift, p.estimate) for p in own if p.first.method == method]
                axes.plot(
                    [x for x, _ in some],
                    [100 * e.value for _, e in some],
                    ls="",
                    marker=marker,
                    color=colour,
                    label=method,
                )
                for x, e in some:
                    if e.low is not None and e.high is not None:
                        axes.plot([x, x], [100 * e.low, 100 * e.high], color=colour, lw=1)
            axes.axhline(0, color=FAINT, lw=1)
            log_axis(axes, "x", "trained parameters")
            axes.set_ylabel("difference of accuracy, points")
            legend(axes, 3)

        words = "; ".join(
            f"{p.first.method} {p.first.trained_parameters:,} {minus(f'{100 * p.estimate.value:+.1f}')}" for p in own
        )
        where = f", {model}" if model else ""
        blocks.append(
            Figure(
                slug(name, model),
                f"{b.name} − {a.name}{where}",
                f"Accuracy of the second minus the first, paired by seed and item. "
                f"Bars: {labels(p.estimate for p in own)}.",
                f"Difference of accuracy in points, {b.name} minus {a.name}{where}: {words}.",
                Table(slug(name, model), "Paired differences", _COLUMNS, rows),
                draw,
            )
        )
    return blocks


def _row(p: CellPair, model: str) -> tuple[Cell, ...]:
    c, e = p.first, p.estimate
    what = (model or None, c.method, c.demonstrations, c.adapter, c.trained_parameters, c.storage_dtype)
    known = (e.seeds, e.items) if e.over is not None else (None, None)
    return (*what, p.before, p.after, e.value, e.low, e.high, *known, p.remark)
