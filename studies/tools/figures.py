"""Draws the figures of the README and of the documentation: `make figure`.

The values come from the points tables in studies/results, by the library's own statistics. Each figure is written to
docs/images as SVG and as PNG.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capacity_analysis.compare.comparison import Comparison, comparisons
from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.hill import Hill
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.question import Question
from capacity_analysis.types import Array
from capacity_reports.blocks import Column, Figure, Table
from capacity_reports.figures import FAINT, METHODS, log_axis, percent_axis, png_file, svg_file
from studies.tools.message_tables import choice_bits, is_usual, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results"
IMAGES = ROOT / "docs" / "images"
COMPARED = ("sft", "rft", "grpo")
CHOICES = {0: ("#555555", "o"), 4: ("#0072b2", "s"), 8: ("#008060", "^"), 12: ("#d55e00", "D")}  # by bits a parameter


def accuracy_against_size(axes: "Axes") -> None:
    """The accuracy of each method on abacus-0.9m against the trained parameters, with 95 % intervals.

    Lines go through chosen projections, dotted ones through random ones. Both end in the adapters that have none.
    """
    cells = [c for c in trained(read_points(str(RESULTS / "abacus-scaling.csv"))) if c.model == "abacus-0.9m"]
    for method in COMPARED:
        colour, marker, _ = METHODS[method]
        mine = [c for c in cells if c.method == method]
        for name, line, face in (("random", ":", "white"), ("chosen", "-", colour)):
            shown = [c for c in mine if c.adapter != "tinylora" or bool(choice_bits(c)) == (name == "chosen")]
            x = np.array([c.trained_parameters for c in shown]) * 1.06 ** (COMPARED.index(method) - 1)
            estimates = [c.accuracy for c in shown]
            _with_bars(axes, x, estimates, colour, marker, line, face, f"{method}, {name}")
    log_axis(axes, "x", "trained parameters (logarithmic)")
    percent_axis(axes, "correct answers, %")
    axes.legend(frameon=False, loc="lower right", fontsize=8)


def noise_or_distance(axes: "Axes") -> None:
    """The accuracy of sft at 1,792 parameters against the noise of its demonstrations, for three distances."""
    cells = {
        _style(c.cell.demonstrations or ""): c.cell.accuracy
        for comparison in _of_model("abacus-causal.csv", "abacus-0.2m")
        for c in comparison.cells
        if c.cell.method == "sft" and c.cell.trained_parameters == 1792
    }
    inks = ("#0072b2", "#008060", "#d55e00")
    for place, (shift, colour) in enumerate(zip(sorted({s for _, s in cells}), inks, strict=True)):
        noise = sorted(bits for bits, s in cells if s == shift)
        estimates = [cells[bits, shift] for bits in noise]
        values = np.array([estimate.value for estimate in estimates])
        ends = np.array([values - _lows(estimates), _highs(estimates) - values])
        x = np.array(noise) + 0.12 * (place - 1)
        axes.errorbar(x, values, ends, color=colour, marker="o^s"[place], capsize=2, label=f"distance {shift:g} bits")
    axes.set_xticks([0, 4, 8])
    axes.set_xlabel("noise in each demonstration, bits")
    percent_axis(axes, "correct answers, %")
    axes.legend(frameon=False, loc="lower left")


def chosen_projections(axes: "Axes") -> None:
    """The accuracy of each method on abacus-0.9m, with random projections and those that 8 bits chose."""
    cells = [c for c in trained(read_points(str(RESULTS / "abacus-message.csv"))) if c.model == "abacus-0.9m"]
    for method in COMPARED:
        colour, marker, _ = METHODS[method]
        for bits, line, face in ((8, "-", colour), (0, ":", "white")):
            mine = [c for c in cells if c.method == method and choice_bits(c) == bits and is_usual(c)]
            x = np.array([c.trained_parameters for c in mine]) * 1.06 ** (COMPARED.index(method) - 1)
            estimates = [c.accuracy for c in mine]
            _with_bars(axes, x, estimates, colour, marker, line, face, f"{method}, {'chosen' if bits else 'random'}")
    log_axis(axes, "x", "trained parameters (logarithmic)")
    sizes = sorted({c.trained_parameters for c in cells})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    percent_axis(axes, "correct answers, %")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def accuracy_against_bits(axes: "Axes") -> None:
    """The accuracy of grpo on abacus-0.9m against the bits of the stored update, a line for each number of bits."""
    points = read_points(str(RESULTS / "abacus-message.csv"))
    cells = [c for c in trained(points) if c.model == "abacus-0.9m" and c.method == "grpo" and is_usual(c)]
    for bits, (colour, marker) in CHOICES.items():
        mine = sorted((8 * (c.update_bytes or 0), c.accuracy) for c in cells if choice_bits(c) == bits)
        x, estimates = np.array([stored for stored, _ in mine]), [estimate for _, estimate in mine]
        line, face, name = ("-", colour, f"chosen, {bits} bits") if bits else (":", "white", "random")
        _with_bars(axes, x, estimates, colour, marker, line, face, name)
    log_axis(axes, "x", "bits of the stored update, choice included (logarithmic)")
    axes.set_xticks([16, 64, 256, 1024], ["16", "64", "256", "1,024"])
    percent_axis(axes, "correct answers of grpo, %")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def threshold_against_model(axes: "Axes") -> None:
    """The parameters that each method needs for 65 % accuracy on the embedded models, with 95 % intervals."""
    study = study_thresholds(
        read_points(str(RESULTS / "abacus-scaling.csv")), Selection(), Question(target=0.65), null=0
    )
    models = {e.design.model or "": e.design.model_parameters or math.nan for e in study.evidence}
    for place, method in enumerate(COMPARED):
        colour, marker, _ = METHODS[method]
        for projection, line, face in (("chosen", "-", colour), ("random", ":", "white")):
            found = [t for t in study.thresholds if t.answer and t.curve == f"{method} {projection} P"]
            found.sort(key=lambda t: models[t.model or ""])
            x = np.array([models[t.model or ""] for t in found]) * 1.05 ** (place - 1)
            values = np.array([t.threshold.estimate or math.nan for t in found])
            lows = np.array([t.threshold.low or math.nan for t in found])
            highs = np.array([t.threshold.high or math.nan for t in found])
            axes.errorbar(
                x, values, np.array([values - lows, highs - values]), color=colour, marker=marker, linestyle=line,
                markerfacecolor=face, capsize=2, label=f"{method}, {projection}",
            )  # fmt: skip
    log_axis(axes, "x", "model, by its parameters (logarithmic)")
    axes.set_xticks(list(models.values()), list(models))
    log_axis(axes, "y", "trained parameters for 65 %")
    axes.set_yticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def threshold(axes: "Axes") -> None:
    """An illustration: what base, ceiling, target, threshold and ratio mean on two Hill curves."""
    sizes = np.geomspace(1, 1e6, 200)
    target = 0.4 + 0.8 * (0.97 - 0.4)
    for method, midpoint in (("grpo", 150.0), ("sft", 450.0)):
        curve = Hill(lower=0.4, upper=0.97, midpoint=midpoint, slope=1.0)
        colour, _, _ = METHODS[method]
        axes.plot(sizes, curve.accuracy(sizes), color=colour)
        reached = midpoint * ((target - curve.lower) / (curve.upper - target)) ** (1.0 / curve.slope)
        axes.plot([reached, reached], [0.3, target], color=colour, linestyle=":")
        axes.plot(reached, target, "o", color=colour)
        name, side = ("threshold\nof grpo", "right") if method == "grpo" else (" threshold\n of sft", "left")
        axes.annotate(name, (reached * (0.9 if side == "right" else 1.05), 0.32), color=colour, ha=side, fontsize=8)
    for height, name in ((0.4, "base"), (target, "target: 80 % of the gain"), (0.97, "ceiling")):
        axes.axhline(height, color=FAINT, linestyle="--", linewidth=1.0)
        axes.annotate(name, (1, height), (2, 3), textcoords="offset points", fontsize=8)
    log_axis(axes, "x", "trained parameters (logarithmic)")
    percent_axis(axes, "correct answers, %")
    axes.set_ylim(0.3, 1.02)


FIGURES: dict[str, Callable[["Axes"], None]] = {
    "accuracy-against-bits": accuracy_against_bits,
    "accuracy-against-size": accuracy_against_size,
    "chosen-projections": chosen_projections,
    "noise-or-distance": noise_or_distance,
    "threshold": threshold,
    "threshold-against-model": threshold_against_model,
}


def _of_model(table: str, model: str) -> list[Comparison]:
    found = comparisons(read_points(str(RESULTS / table)))
    return [comparison for comparison in found if comparison.cells[0].cell.model == model]


def _style(demonstrations: str) -> tuple[float, float]:
    """Style bits and style shift of demonstrations that are named like `worked&style_bits=4&style_shift=2.4`."""
    named = dict(part.split("=") for part in demonstrations.replace("?", "&").split("&") if "=" in part)
    return float(named["style_bits"]), float(named["style_shift"])


def _with_bars(
    axes: "Axes", x: Array, estimates: Sequence[Estimate], colour: str, marker: str, line: str, face: str, name: str
) -> None:
    """Draws estimates at x, shape (n,), with their intervals as bars."""
    values = np.array([estimate.value for estimate in estimates])
    ends = np.array([values - _lows(estimates), _highs(estimates) - values])
    axes.errorbar(
        x, values, ends, color=colour, marker=marker, linestyle=line, markerfacecolor=face, capsize=2, label=name
    )


def _lows(estimates: Sequence[Estimate]) -> list[float]:
    return [math.nan if estimate.low is None else estimate.low for estimate in estimates]


def _highs(estimates: Sequence[Estimate]) -> list[float]:
    return [math.nan if estimate.high is None else estimate.high for estimate in estimates]


def main() -> None:
    """Writes every figure."""
    for name, draw in FIGURES.items():
        figure = Figure(name, "", "", "", Table(name, "", (Column("size", "size"),), ()), draw, height=3.0)
        (IMAGES / f"{name}.svg").write_text(svg_file(figure))
        (IMAGES / f"{name}.png").write_bytes(png_file(figure))


if __name__ == "__main__":
    main()
