"""Results as tables for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # scipy takes half a second that `plan` need not wait for
    from capacity_analysis.compare.comparison import Arm, Comparison
    from capacity_analysis.statistics.intervals import Interval


def percent(interval: "Interval") -> str:
    """An estimate with its interval in percent: "61.2 (58.0–64.3)"."""
    return f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def seconds(value: float) -> str:
    """A duration in words: "48 s" or "2 min 05 s"."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def comparison_view(comparison: "Comparison", wall_seconds: float, remarks: Sequence[str] = ()) -> RenderableType:
    """One comparison for a terminal: its table, the base at every temperature, remarks, and the verdict."""
    table = Table(title=f"{comparison.model} on {comparison.task}", title_justify="left", box=None, pad_edge=False)
    best = comparison.best_temperature
    over = "" if best is None else f"over T={best:g}"
    headings = ("method", "trained", "update", "rate", "accuracy % (95 %)", "gain", over, "run time")
    for name in headings:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    table.add_row("base", "0", "0 B", "", percent(comparison.base), "", "", "")
    for arm in comparison.arms:
        table.add_row(
            arm.method,
            f"{arm.trained_parameters:,}",
            f"{arm.update_bytes:,} B",
            f"{arm.learning_rate:g}",
            percent(arm.accuracy),
            f"{100 * arm.gain.estimate:+.1f}",
            f"{100 * arm.gain_over_best_temperature.estimate:+.1f}" if arm.gain_over_best_temperature else "",
            seconds(arm.wall_seconds),
        )
    by_temperature = ", ".join(f"T={t:g} {percent(i)}" for t, i in comparison.base_by_temperature.items())
    notes = [f"Base by temperature, %: {by_temperature}."]
    if best is not None:
        notes.append(f'Best temperature of the base, chosen on validation: {best:g}; "{over}" is the gain over it.')
    if comparison.arms:
        arm = comparison.arms[0]
        notes.extend(_cost(a) for a in comparison.arms)
        notes.append(f"Each run answers {arm.accuracy.items:,} test items; seeds: {arm.accuracy.seeds}.")
        notes.append(
            f"Update: {arm.adapter}, {arm.storage_dtype} payload; the header of its file takes {arm.header_bytes} B "
            "besides. Accuracies, gains and intervals in percentage points."
        )
    notes.extend(remarks)
    notes.append(f"Wall time {seconds(wall_seconds)}.")
    return Group(table, Text(""), *(Text(n) for n in notes), Text(""), Text(comparison.verdict, style="bold"))


def _cost(arm: "Arm") -> str:
    """What a run of an arm used on average, in words."""
    sampled = f", {arm.sampled_tokens / 1000:,.0f} k sampled tokens" if arm.sampled_tokens else ""
    return (
        f"{arm.method}: {arm.prompts:,.0f} prompts, {arm.sequences:,.0f} sequences, "
        f"{arm.trained_tokens / 1000:,.0f} k trained tokens{sampled}, {arm.flops:.2g} FLOPs a run."
    )


def rows_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of strings."""
    table = Table(box=None, pad_edge=False)
    for name in headings:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
