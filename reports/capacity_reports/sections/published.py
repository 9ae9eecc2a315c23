"""The published curves beside which ours stand, the first crossings that follow from them, and what does not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity_analysis.data.published import (
    CITATION,
    GAINS,
    REMARKS,
    TASKS,
    Crossing,
    crossing_words,
    first_crossings,
    reference_points,
    supported_lines,
)
from capacity_analysis.data.table import Points
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text
from capacity_reports.figures import legend, log_axis, method_style, numbers, percent_axis, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PUBLISHED_TASK = "gsm8k"
_LONG = (
    Column("model", "model"),
    Column("task", "task"),
    Column("gain", "share of the gain, %", "percent"),
    Column("target", "target, %", "percent"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("censored", "censored"),
)
_CURVES = (
    Column("model", "model"),
    Column("model_parameters", "model parameters", "count"),
    Column("method", "method"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("accuracy", "accuracy, %", "percent"),
)
_STATED = (*_CURVES[:1], *_CURVES[2:], Column("protocol", "protocol"))


def published_section() -> Section:
    """The section of the published curves and of what they do not support."""
    points = reference_points("tinylora-table2")
    crossings = first_crossings(points)
    long = Table(
        "published-crossings-long",
        "First size that reaches a share of the gain, a row each",
        _LONG,
        tuple(tuple(getattr(c, column.key) for column in _LONG) for c in crossings if c.task in TASKS),
        exported_only=True,
    )
    blocks = (
        _remarks((*REMARKS["tinylora-table2"], *REMARKS["tinylora-text"][1:])),
        *_supported(supported_lines(points)),
        _accuracy(points),
        _crossings(crossings, GAINS),
        long,
    )
    return Section("published", "Published figures", blocks)


def published_blocks(name: str, points: Points, gains: Sequence[float], gain: float) -> list[Block]:
    """What follows from published figures, and what does not.

    Args:
        name: of the figures, a key of `REMARKS`.
        points: the figures.
        gains: the shares of the gain of the first crossings.
        gain: the share of the gain about which sentences are made.
    """
    crossings = first_crossings(points, tuple(gains))
    if not crossings:
        said = Text(("Stated figures; no curve with base, sizes and full update, so no crossing follows.",))
        return [said, _table("published-stated", "Stated accuracies", _STATED, points), _remarks(REMARKS[name])]
    return [_crossings(crossings, gains), *_supported(supported_lines(points, gain)), _remarks(REMARKS[name])]


def _remarks(lines: Sequence[str]) -> Text:
    return Text(tuple(lines), bullets=True)


def _supported(lines: Sequence[str]) -> list[Block]:
    return [Text(tuple(f"Supported, of means only: {line}." for line in lines))] if lines else []


def _crossings(crossings: Sequence[Crossing], gains: Sequence[float]) -> Table:
    cells: dict[tuple[str, str], list[str]] = {}
    for c in crossings:
        cells.setdefault((c.model, c.task), []).append(crossing_words(c))
    shares = (Column(f"gain_{100 * gain:g}", f"{100 * gain:g} % of the gain") for gain in gains)
    return Table(
        "published-crossings",
        "First size that reaches a share of the gain, trained parameters (accuracy asked for, %)",
        (Column("model", "model"), Column("task", "task"), *shares),
        tuple((model, task, *words) for (model, task), words in cells.items()),
        "≤: the smallest size tested reaches it already. >: no size tested below the full update does.",
    )


def _table(name: str, title: str, columns: Sequence[Column], points: Points, task: str | None = None) -> Table:
    frame = points.frame if task is None else points.frame[(points.frame["task"] == task).fillna(False)]
    rows = zip(*(frame[column.key].tolist() for column in columns), strict=True)
    return Table(name, title, tuple(columns), tuple(rows))


def _accuracy(points: Points) -> Figure:
    data = _table("published-accuracy", "Published accuracies", _CURVES, points, PUBLISHED_TASK)
    rows: tuple[tuple[Cell, ...], ...] = data.rows
    models = list(dict.fromkeys(row[0] for row in rows))

    def draw(axes: "Axes") -> None:
        for place, model in enumerate(models):
            colour, marker, _ = method_style("grpo" if place == 0 else ("sft", "rft", "rft-online")[(place - 1) % 3])
            own = sorted((r[3], r[4]) for r in rows if r[0] == model and r[2] != "base")
            axes.plot(
                numbers(x for x, _ in own), numbers(y for _, y in own), marker=marker, color=colour, label=str(model)
            )
            base = next((r[4] for r in rows if r[0] == model and r[2] == "base"), None)
            if isinstance(base, float):
                axes.axhline(base, color=colour, ls="--", lw=1)
        log_axis(axes, "x", "trained parameters")
        percent_axis(axes)
        legend(axes, 2)

    words = "; ".join(
        f"{m} from {100 * min(float(r[4] or 0) for r in rows if r[0] == m):.1f} to "
        f"{100 * max(float(r[4] or 0) for r in rows if r[0] == m):.1f} %"
        for m in models
    )
    return Figure(
        data.name,
        "Published accuracy on GSM8K, GRPO",
        f"{CITATION}, table 2; dashed: the untrained models. Means without seeds or counts.",
        f"Published accuracy against trained parameters on GSM8K: {words}; the largest update trains up to "
        f"{short(max(float(r[3] or 0) for r in rows))} parameters.",
        data,
        draw,
    )
