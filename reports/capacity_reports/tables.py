"""Results as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # scipy takes half a second that `plan` need not wait for
    from capacity_analysis.compare.comparison import Comparison
    from capacity_analysis.compare.costs import Costs


def seconds(value: float) -> str:
    """A duration in words: "48 s" or "2 min 05 s"."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def comparison_view(
    comparison: "Comparison", costs: "Mapping[str, Costs]", wall_seconds: float, remarks: Sequence[str] = ()
) -> RenderableType:
    """The table, the base at every temperature, remarks, and the verdict of one comparison."""
    from capacity_analysis.compare.verdicts import verdict
    from capacity_analysis.statistics.estimate import labels

    assert comparison.base is not None
    title = f"{comparison.recipe['model']} on {comparison.task}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    best = comparison.best_temperature
    over = "" if best is None else f"over T={best:g}"
    headings = ("method", "trained", "update", "rate", "accuracy % (95 %)", "gain", over, "run time")
    for name in headings:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    table.add_row("base", "0", "0 B", "", comparison.base.percent(), "", "", "")
    for compared in comparison.cells:
        cell, gain, sharpened = compared.cell, compared.gain, compared.gain_over_best_temperature
        table.add_row(
            compared.name,
            f"{cell.trained_parameters:,}",
            f"{cell.update_bytes:,} B",
            f"{cell.learning_rate:g}",
            cell.accuracy.percent(),
            "" if gain is None else f"{100 * gain.value:+.1f}",
            "" if sharpened is None else f"{100 * sharpened.value:+.1f}",
            seconds(costs[cell.identity].wall_seconds),
        )
    by_temperature = ", ".join(f"T={t:g} {e.percent()}" for t, e in comparison.base_by_temperature.items())
    notes = [f"Base by temperature, %: {by_temperature}."]
    if best is not None:
        notes.append(f'Best temperature of the base, chosen on validation: {best:g}; "{over}" is the gain over it.')
    cells = [compared.cell for compared in comparison.cells]
    if cells:
        notes.extend(_cost(compared.name, costs[compared.cell.identity]) for compared in comparison.cells)
        notes.append(f"Each run answers {cells[0].accuracy.items:,} test items; seeds: {cells[0].accuracy.seeds}.")
        notes.append(
            f"Update: {cells[0].adapter}, {cells[0].storage_dtype} payload; the header of its file takes "
            f"{costs[cells[0].identity].header_bytes} B besides. Accuracies, gains and intervals in percentage points."
        )
    notes.append(f"Intervals: {labels([*(cell.accuracy for cell in cells), comparison.base])}.")
    notes.extend(remarks)
    notes.append(f"Wall time {seconds(wall_seconds)}.")
    said = Text(verdict(comparison).sentence, style="bold")
    return Group(table, Text(""), *(Text(n) for n in notes), Text(""), said)


def _cost(name: str, costs: "Costs") -> str:
    """What a run of a cell used, on average."""
    sampled = f", {costs.sampled_tokens / 1000:,.0f} k sampled tokens" if costs.sampled_tokens else ""
    return (
        f"{name}: {costs.prompts:,.0f} prompts, {costs.sequences:,.0f} sequences, "
        f"{costs.trained_tokens / 1000:,.0f} k trained tokens{sampled}, {costs.flops:.2g} FLOPs a run."
    )


def rows_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of strings."""
    table = Table(box=None, pad_edge=False)
    for name in headings:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
