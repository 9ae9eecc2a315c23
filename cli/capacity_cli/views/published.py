"""What `capacity threshold reference:NAME` prints: first crossings, what they support, and what they do not."""

from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from capacity.library.published import Published
from capacity_analysis.data.published import Crossing, crossing_words
from capacity_analysis.data.table import Points
from capacity_reports.tables import rows_table


def published_view(found: Published) -> RenderableType:
    """Everything, in its order."""
    parts: list[RenderableType] = []
    if found.crossings:
        parts += [Text("First size that reaches a share of the gain from the base up to the full update", style="bold")]
        headings = ("model", "benchmark", *(f"{100 * gain:g} % of the gain" for gain in found.gains))
        parts += [rows_table(headings, _rows(found.crossings)), Text("")]
        parts += [
            Text("In parentheses the accuracy asked for. ≤: the smallest size tested reaches it already."),
            Text(""),
        ]
    else:
        parts += [
            Text("Stated figures; no curve with base, sizes and full update, so no crossing follows", style="bold")
        ]
        parts += [rows_table(("model", "method", "trained", "accuracy %", "protocol"), _stated(found.points)), Text("")]
    if found.supported:
        parts += [Text("Supported, of means only:"), *(Text(f"- {line}.") for line in found.supported)]
    parts += [Text("Not supported, and to know:"), *(Text(f"- {line}") for line in found.remarks)]
    return Group(*parts)


def _rows(crossings: tuple[Crossing, ...]) -> list[tuple[str, ...]]:
    arms = groupby(crossings, key=lambda c: (c.model, c.task))
    return [(model, task, *map(crossing_words, own)) for (model, task), own in arms]


def _stated(points: Points) -> list[tuple[str, ...]]:
    frame = points.frame
    named = ("model", "method", "trained_parameters", "accuracy", "protocol")
    return [
        (model, method, f"{size:,}", f"{100 * accuracy:.1f}", protocol)
        for model, method, size, accuracy, protocol in zip(*(frame[n] for n in named), strict=True)
    ]
