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
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.hill import Hill
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
    """The accuracy of each method on abacus-0.9m against the trained parameters, with 95 % intervals as bands."""
    found = _of_model("abacus-sizes.csv", "abacus-0.9m")
    for method in COMPARED:
        cells = [(c.cell.trained_parameters, c.cell.accuracy) for f in found for c in f.cells if c.name == method]
        colour, marker, line = METHODS[method]
        sizes, estimates = [size for size, _ in cells], [estimate for _, estimate in cells]
        axes.fill_between(sizes, _lows(estimates), _highs(estimates), color=colour, alpha=0.1, linewidth=0)
        for ends in (_lows(estimates), _highs(estimates)):
            axes.plot(sizes, ends, color=colour, linewidth=0.5, alpha=0.6)
        axes.plot(sizes, [e.value for e in estimates], color=colour, marker=marker, linestyle=line)
        end, away = (sizes[-1], estimates[-1].value), {"grpo": 2, "rft": -3}.get(method, 0)
        axes.annotate(method, end, (7, away), textcoords="offset points", color=colour, va="center", fontweight="bold")
    base = found[0].base
    assert base is not None
    axes.axhline(base.value, color=FAINT, linestyle="--", linewidth=1.0)
    axes.annotate("untrained model", (1e5, base.value), (0, -4), textcoords="offset points", va="top", fontsize=8)
    log_axis(axes, "x", "trained parameters (logarithmic)")
    percent_axis(axes, "correct answers, %")
    axes.set_ylim(0.2, 1.0)


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
            values = np.array([e.value for e in estimates])
            ends = np.array([values - _lows(estimates), _highs(estimates) - values])
            axes.errorbar(
                x, values, ends, color=colour, marker=marker, linestyle=line, markerfacecolor=face, capsize=2,
                label=f"{method}, {'chosen' if bits else 'random'}",
            )  # fmt: skip
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
        estimates = [estimate for _, estimate in mine]
        values = np.array([estimate.value for estimate in estimates])
        ends = np.array([values - _lows(estimates), _highs(estimates) - values])
        name = f"chosen, {bits} bits" if bits else "random"
        axes.errorbar(
            [stored for stored, _ in mine], values, ends, color=colour, marker=marker, capsize=2, label=name,
            linestyle="-" if bits else ":", markerfacecolor=colour if bits else "white",
        )  # fmt: skip
    log_axis(axes, "x", "bits of the stored update, choice included (logarithmic)")
    axes.set_xticks([16, 64, 256, 1024], ["16", "64", "256", "1,024"])
    percent_axis(axes, "correct answers of grpo, %")
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
}


def _of_model(table: str, model: str) -> list[Comparison]:
    found = comparisons(read_points(str(RESULTS / table)))
    return [comparison for comparison in found if comparison.cells[0].cell.model == model]


def _style(demonstrations: str) -> tuple[float, float]:
    """Style bits and style shift of demonstrations that are named like `worked&style_bits=4&style_shift=2.4`."""
    named = dict(part.split("=") for part in demonstrations.replace("?", "&").split("&") if "=" in part)
    return float(named["style_bits"]), float(named["style_shift"])


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
