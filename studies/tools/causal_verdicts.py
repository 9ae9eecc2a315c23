"""Holds the predictions of studies/abacus-causal.toml against its runs.

    python studies/tools/causal_verdicts.py STUDY

Prints, in Markdown: accuracy by style and size; the difference each prediction is about, paired by seed and item; and
what a converged model pays for a demonstration, bit by bit of style.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from capacity import __version__
from capacity.runs.cell import cells
from capacity.runs.study import Study
from capacity_analysis.compare.comparison import comparisons
from capacity_analysis.data.cell_results import CellResult, difference
from capacity_analysis.data.table import study_points
from capacity_analysis.statistics.estimate import Estimate, labels
from capacity_reports.blocks import Column, Section, Table
from capacity_reports.document import Report

MARGIN = 0.03  # "less than 3 points" in the predictions
_Style = tuple[float, float] | None  # bits and shift of the demonstrations; None where none are seen


def lower(estimate: Estimate) -> str:
    """The side of a difference, if it has one."""
    return {-1: "lower", 0: "undecided", 1: "higher"}[estimate.sign]


def within(estimate: Estimate) -> str:
    """Says if a difference is smaller than the margin."""
    assert estimate.low is not None
    assert estimate.high is not None
    if estimate.low > -MARGIN and estimate.high < MARGIN:
        return "within"
    return "beyond" if estimate.low > MARGIN or estimate.high < -MARGIN else "undecided"


def over(first: CellResult, second: CellResult) -> Estimate:
    """By how much the first cell is more accurate."""
    found = difference(first, second)
    assert found is not None
    return found


def style_of(cell: CellResult) -> _Style:
    """The style of the demonstrations that a cell saw."""
    bits, shift = (cell.recipe.get(f"task.options.style_{name}") for name in ("bits", "shift"))
    return None if bits is None else (float(bits), float(shift))


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    """A table of texts."""
    columns = tuple(Column(str(place), head) for place, head in enumerate(heads))
    return Table(title, title, columns, tuple(tuple(row) for row in rows), note)


def main() -> None:
    """Reads the study named on the command line."""
    folder = Path(sys.argv[1])
    runs = Study(folder).runs()
    compared = [c.cell for found in comparisons(study_points(folder, runs)) for c in found.cells]
    results = {(cell.method, style_of(cell), cell.trained_parameters): cell for cell in compared}
    members = {cell.identity: own for cell, own in cells(runs, lambda run: run.cell).items()}
    sizes = sorted({size for _, _, size in results})
    bits, shifts = (sorted({style[place] for _, style, _ in results if style}) for place in (0, 1))
    full = sizes[-1]

    def sft(b: float, s: float, size: int) -> CellResult:
        return results["sft", (b, s), size]

    def differences(title: str, found: Sequence[tuple[str, list[Estimate]]], word: Callable[[Estimate], str]) -> Table:
        rows = [(name, *(f"{e.points()} {word(e)}" for e in own)) for name, own in found]
        note = f"Intervals: {labels(e for _, own in found for e in own)}."
        return table(title, ("", *(f"{z:,}" for z in sizes)), rows, note)

    def paid(b: float, s: float) -> float:
        """What the model trained in full pays for a held-out demonstration, bits, mean over seeds."""
        of_runs = [run.result for run in members[sft(b, s, full).identity]]
        return fmean(r.heldout_code_length_bits / r.heldout_demonstrations for r in of_runs)  # type: ignore[operator]

    styles = [("sft", (b, s)) for b in bits for s in shifts]
    shown = [*styles, ("rft", None), ("grpo", None)]
    accuracies = [
        (method, *(f"{part:g}" for part in style or ()), *("",) * (0 if style else 2),
         *(results[method, style, z].accuracy.percent() for z in sizes))
        for method, style in shown
    ]  # fmt: skip
    grpo, rft = results["grpo", None, full], results["rft", None, full]
    others = [(f"sft {b:g} bits, shift {s:g}", over(sft(b, s, full), grpo)) for b in bits for s in shifts]
    others.append(("rft", over(rft, grpo)))
    prices = [[paid(b, s) for b in bits] for s in shifts]
    slopes = [float(np.polyfit(bits, price, 1)[0]) for price in prices]
    blocks = (
        table(
            "Accuracy, %",
            ("method", "style_bits", "style_shift", *(f"{z:,}" for z in sizes)),
            accuracies,
            f"Intervals: {labels(results[method, style, z].accuracy for method, style in shown for z in sizes)}.",
        ),
        differences(
            f"Shift, sft at {shifts[-1]:g} − sft at {shifts[0]:g} bits of shift, points",
            [(f"style_bits {b:g}", [over(sft(b, shifts[-1], z), sft(b, shifts[0], z)) for z in sizes]) for b in bits],
            lower,
        ),
        differences(
            f"Entropy, sft with {bits[-1]:g} − sft with {bits[0]:g} style bits, points",
            [(f"style_shift {s:g}", [over(sft(bits[-1], s, z), sft(bits[0], s, z)) for z in sizes]) for s in shifts],
            within,
        ),
        differences(
            "Without shift, sft − rft, points",
            [(f"style_bits {b:g}", [over(sft(b, 0.0, z), results["rft", None, z]) for z in sizes]) for b in bits],
            within,
        ),
        table(
            "All weights trained, difference from grpo, points",
            ("cell", "difference", "3 points"),
            [(name, e.points(), within(e)) for name, e in others],
            f"Intervals: {labels(e for _, e in others)}.",
        ),
        table(
            "What a model trained in full pays for a held-out demonstration, bits",
            ("style_shift", *(f"{b:g} style bits" for b in bits), "slope"),
            [
                (f"{s:g}", *(f"{p:.2f}" for p in price), f"{slope:.3f}")
                for s, price, slope in zip(shifts, prices, slopes, strict=True)
            ],
        ),
    )
    print(Report("Predictions and runs", "", (), (Section("tables", folder.name, blocks),), {}, __version__).markdown())


if __name__ == "__main__":
    main()
