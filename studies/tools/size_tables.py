"""Accuracy against size of a finished study, in Markdown: `python studies/tools/size_tables.py STUDY`.

For each model and size: accuracy and gain of every method, the paired differences between methods, the controls
against rft, and what workers took.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from capacity import __version__
from capacity.runs.study import Run, Study
from capacity.spec.methods import METHODS, in_order
from capacity_analysis.compare.comparison import Comparison, comparisons
from capacity_analysis.data.cell_results import difference
from capacity_analysis.data.table import study_points
from capacity_analysis.statistics.estimate import labels
from capacity_reports.blocks import Cell, Column, Section, Table
from capacity_reports.document import Report
from capacity_reports.sections.comparison import comparison_blocks

_WORKERS = (
    Column("model", "model"),
    Column("method", "method"),
    Column("runs", "runs", "count"),
    Column("seconds", "median seconds", "count"),
    Column("memory", "largest peak memory, MiB", "count"),
)

_OVER_RFT = (
    Column("model", "model"),
    Column("method", "method"),
    Column("trained_parameters", "trained parameters", "count"),
    Column("difference", "difference from rft, points"),
)


def over_rft(comparisons: Sequence[Comparison]) -> Table:
    """What each control scores over rft at every size."""
    rows: list[tuple[Cell, ...]] = []
    used = []
    for found in comparisons:
        cells = {c.cell.method: c.cell for c in found.cells}
        for method in [m for m in cells if m != "rft" and METHODS[m].controls_for and "rft" in cells]:
            estimate = difference(cells[method], cells["rft"])
            if estimate is not None:
                used.append(estimate)
                rows.append((cells[method].model, method, cells[method].trained_parameters, estimate.points()))
    return Table("over-rft", "Controls against rft", _OVER_RFT, tuple(rows), f"Intervals: {labels(used)}.")


def workers(runs: Sequence[Run]) -> Iterator[tuple[Cell, ...]]:
    """The rows of the table on workers: one a model and method."""
    for model in sorted({run.spec.model for run in runs}):
        own = [run for run in runs if run.spec.model == model]
        for method in in_order({run.spec.method for run in own}):
            some = [run.result for run in own if run.spec.method == method]
            seconds = median(result.wall_seconds or 0.0 for result in some)
            memory = max(result.worker_peak_memory_bytes or 0 for result in some)
            yield model, method, len(some), round(seconds), round(memory / 2**20)


def main() -> None:
    """Reads the study named on the command line."""
    folder = Path(sys.argv[1])
    runs = Study(folder).runs()
    trained = [run for run in runs if run.spec.training is not None and run.spec.evaluation.split == "test"]
    compared = comparisons(study_points(folder, runs))
    blocks = [*comparison_blocks(compared), over_rft(compared)]
    blocks.append(Table("workers", "Workers", _WORKERS, tuple(workers(trained))))
    section = Section("tables", folder.resolve().name, tuple(blocks))
    print(Report("Accuracy against size", "", (), (section,), {}, __version__).markdown())


if __name__ == "__main__":
    main()
