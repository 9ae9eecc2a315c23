"""`capacity threshold reference:NAME`: the first crossings that follow from published figures, and what does not."""

import json
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from capacity.errors import CapacityError
from capacity_reports.tables import rows_table

if TYPE_CHECKING:
    from capacity_analysis.data.published import Crossing
    from capacity_analysis.data.table import Points
    from capacity_analysis.thresholds.question import Question


def is_published(source: str) -> bool:
    """Whether the source is figures that ship, of several tasks or protocols."""
    return source.startswith("reference:")


def show_published(points: "Points", name: str, question: "Question", *, as_json: bool) -> None:
    """Prints first crossings of every model and benchmark, at the gain asked for and at the usual ones."""
    from capacity_analysis.data.published import GAINS, REMARKS, first_crossings, supported_lines

    gains = tuple(sorted({*GAINS, question.gain}))
    crossings = first_crossings(points, gains)
    supported = supported_lines(points, question.gain) if crossings else []
    if as_json:
        curves, failed = _curves(points, question)
        result = {
            "source": f"reference:{name}",
            "unit": "parameters",
            "curves": curves,
            "ratios": [],
            "null_calibration": {"simulations": 0, "pairs": []},
            "crossings": [asdict(crossing) for crossing in crossings],
            "supported": supported,
            "not_supported": [*REMARKS[name], *failed],
        }
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    console = Console()
    console = console if console.is_terminal else Console(width=1000)
    parts: list[RenderableType] = []
    if crossings:
        parts += [Text("First size that reaches a share of the gain from the base up to the full update", style="bold")]
        headings = ("model", "benchmark", *(f"{100 * gain:g} % of the gain" for gain in gains))
        parts += [rows_table(headings, _rows(crossings)), Text("")]
        parts += [
            Text("In parentheses the accuracy asked for. ≤: the smallest size tested reaches it already."),
            Text(""),
        ]
    else:
        parts += [
            Text("Stated figures; no curve with base, sizes and full update, so no crossing follows", style="bold")
        ]
        parts += [rows_table(("model", "method", "trained", "accuracy %", "protocol"), _stated(points)), Text("")]
    if supported:
        parts += [Text("Supported, of means only:"), *(Text(f"- {line}.") for line in supported)]
    parts += [Text("Not supported, and to know:"), *(Text(f"- {line}") for line in REMARKS[name])]
    console.print(Group(*parts), highlight=False, soft_wrap=not console.is_terminal)


def _rows(crossings: "tuple[Crossing, ...]") -> list[tuple[str, ...]]:
    from capacity_analysis.data.published import crossing_words

    arms = groupby(crossings, key=lambda c: (c.model, c.task))
    return [(model, task, *map(crossing_words, own)) for (model, task), own in arms]


def _stated(points: "Points") -> list[tuple[str, ...]]:
    frame = points.frame
    named = ("model", "method", "trained_parameters", "accuracy", "protocol")
    return [
        (model, method, f"{size:,}", f"{100 * accuracy:.1f}", protocol)
        for model, method, size, accuracy, protocol in zip(*(frame[n] for n in named), strict=True)
    ]


def _curves(points: "Points", question: "Question") -> tuple[list[dict[str, Any]], list[str]]:
    """Thresholds task by task and protocol by protocol as `--task` gives them, and why some have none."""
    from capacity_analysis.data.select import Selection
    from capacity_analysis.data.where import conditions, where
    from capacity_analysis.thresholds.answers import study_thresholds

    curves: list[dict[str, Any]] = []
    failed: list[str] = []
    frame = points.frame
    for task, protocol in dict.fromkeys(zip(frame["task"], frame["protocol"], strict=True)):
        try:
            some = where(points, conditions(task=task, protocol=protocol))
            study = study_thresholds(some, Selection(), question, null=0)
        except CapacityError as error:
            failed.append(str(error))
            continue
        curves += [{"task": task, "protocol": protocol, **curve} for curve in study.to_json()["curves"]]
    return curves, failed
