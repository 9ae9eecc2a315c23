"""Results as tables for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # scipy takes half a second that `plan` need not wait for
    from capacity_analysis.comparison import Comparison
    from capacity_analysis.intervals import Interval


def percent(interval: "Interval") -> str:
    """ "61.2 (58.0–64.3)", in percent."""
    return f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def seconds(value: float) -> str:
    """ "48 s" or "2 min 05 s"."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def comparison_view(comparison: "Comparison", wall_seconds: float, remarks: Sequence[str] = ()) -> RenderableType:
    """The table, base at every temperature, remarks, and verdict of one comparison."""
    table = Table(title=f"{comparison.model} on {comparison.task}", title_justify="left", box=None, pad_edge=False)
    headings = ("method", "trained", "update", "rate", "accuracy % (95 %)", "gain", "run time")
    for name in headings:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    table.add_row("base", "0", "0 B", "", percent(comparison.base), "", "")
    for arm in comparison.arms:
        table.add_row(
            arm.method,
            f"{arm.trained_parameters:,}",
            f"{arm.update_bytes:,} B",
            f"{arm.learning_rate:g}",
            percent(arm.accuracy),
            f"{100 * arm.gain.estimate:+.1f}",
            seconds(arm.wall_seconds),
        )
    by_temperature = ", ".join(f"T={t:g} {percent(i)}" for t, i in comparison.base_by_temperature.items())
    notes = [f"Base by temperature, %: {by_temperature}."]
    if comparison.arms:
        arm = comparison.arms[0]
        tokens = ", ".join(f"{a.method} {a.trained_tokens / 1000:,.0f} k" for a in comparison.arms)
        notes.append(
            f"Each run: {arm.prompts:,} prompts, {arm.sequences:,} sequences (tokens: {tokens}), then "
            f"{arm.accuracy.items:,} test items; seeds: {arm.accuracy.seeds}."
        )
        notes.append(
            f"Update: {arm.adapter}, {arm.storage_dtype} payload; the header of its file takes {arm.header_bytes} B "
            "besides. Accuracies, gains and intervals in percentage points."
        )
    notes.extend(remarks)
    notes.append(f"Wall time {seconds(wall_seconds)}.")
    return Group(table, Text(""), *(Text(n) for n in notes), Text(""), Text(comparison.verdict, style="bold"))


def rows_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of strings."""
    table = Table(box=None, pad_edge=False)
    for name in headings:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
