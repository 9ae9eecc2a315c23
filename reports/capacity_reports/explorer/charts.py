"""A chart of accuracy against size as plain data: the same values as its figure."""

from typing import Any

from capacity_reports.figures import line_styles, method_style, variable
from capacity_reports.sections.accuracy_chart import Chart

_DIGITS = 5  # of shares: a hundredth of a point is finer than any screen


def chart_data(chart: Chart) -> dict[str, Any]:
    """The chart as plain JSON types.

    Sizes are in the unit of the chart, accuracies are shares of 1. Colours are variables of the page's style.
    """
    return {
        "name": chart.where or "all rows",
        "size": chart.size,
        "single": chart.single,
        "methods": [_method(chart, method) for method in chart.methods],
        "lines": _lines(chart),
        "levels": [
            {"name": level.name, "y": _rounded(level.accuracy), "strong": level.name == "target"}
            for level in chart.levels
        ],
    }


def _method(chart: Chart, method: str) -> dict[str, Any]:
    colour, marker, _ = method_style(method)
    return {
        "name": method,
        "ink": variable(colour),
        "marker": marker,
        "points": [
            {
                "x": chart.scale * p.size,
                "y": _rounded(p.accuracy),
                "low": _rounded(p.low),
                "high": _rounded(p.high),
                "seeds": [_rounded(a) for a in chart.dots.get(p.cell, ())],
                "collapsed": list(chart.collapsed.get(p.cell, ())),
                "adapter": _text(p.known.get("adapter")),
                "rate": p.known.get("learning_rate"),
                "demonstrations": _text(p.known.get("demonstrations")),
            }
            for p in chart.of_method(method)
        ],
    }


def _lines(chart: Chart) -> list[dict[str, Any]]:
    styles = line_styles([label for label, _ in chart.lines])
    return [
        {
            "name": label,
            "method": label.partition(" ")[0],
            "ink": variable(styles[label][0]),
            "dashed": styles[label][2] != "-",
            "x": [float(f"{x:.5g}") for x in line.sizes],
            "y": [_rounded(float(y)) for y in line.accuracies],
            "low": None if line.low is None else [_rounded(float(y)) for y in line.low],
            "high": None if line.high is None else [_rounded(float(y)) for y in line.high],
        }
        for label, line in chart.lines
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)


def _text(value: Any) -> str | None:
    return None if value is None or value == "none" else str(value)
