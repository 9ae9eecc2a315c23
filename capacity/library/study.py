"""A study folder as a notebook reads it."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from capacity.library.shown import Shown
from capacity.models.base_files import base_digests
from capacity.runs import study
from capacity.runs.cell import Cell, cells
from capacity.runs.fingerprint import current
from capacity.runs.study import Run, State

if TYPE_CHECKING:
    import pandas as pd

    from capacity_reports.blocks import Block


class Study(Shown, study.Study):
    """A study folder: its runs, their cells, and their points.

    Args:
        folder: path of the folder.
        allow_mixed: its points may be of runs that different environments made.
    """

    def __init__(self, folder: str | Path, *, allow_mixed: bool = False) -> None:
        super().__init__(Path(folder))
        self.allow_mixed = allow_mixed

    @cached_property
    def points(self) -> "pd.DataFrame":
        """The points table: one row a run, as every analysis reads it. Read once.

        Raises:
            DataError: no such study, no complete runs, corrupt ones, or runs of different environments.
        """
        from capacity_analysis.data.read import read_points

        return read_points(str(self.folder), allow_mixed=self.allow_mixed).frame

    def cells(self) -> dict[Cell, list[Run]]:
        """The complete runs by cell: those of one cell differ in nothing but their seeds.

        Raises:
            DataError: as `runs`.
        """
        return cells(self.runs(), lambda run: run.cell)

    def states(self, runs: Sequence[Run]) -> list[State]:
        """Whether each of some runs was made in the present environment, on the present base.

        The trainer and the device are not asked about. Without torch runs cannot be made here, so none of them is
        stale: they come from elsewhere.
        """
        if find_spec("torch") is None:
            return ["complete"] * len(runs)
        bases, made = base_digests(run.spec.model for run in runs), [run.fingerprint for run in runs]
        kinds = {(m.device, m.dtype, m.trainer) for m in made}
        here = {kind: current(*kind) for kind in kinds}
        now = [here[m.device, m.dtype, m.trainer] for m in made]
        return [run.state(n, bases[run.spec.model]) for run, n in zip(runs, now, strict=True)]

    @property
    def line(self) -> str:
        """The folder, and how many runs it has."""
        runs = sum(path.is_dir() for path in self.runs_folder.glob("*"))
        return f"{self.folder}, {runs} complete runs"

    @property
    def blocks(self) -> "Sequence[Block]":
        """A table of its cells."""
        from capacity_reports.blocks import Column, Table

        columns = (
            Column("model", "model"), Column("cell", "cell"), Column("rate", "rate", "number"),
            Column("split", "split"), Column("seeds", "seeds", "count"),
            Column("accuracy", "mean accuracy, %", "percent"),
        )  # fmt: skip
        rows = tuple(
            (
                cell.spec.model,
                cell.label,
                cell.spec.training.learning_rate if cell.spec.training else None,
                cell.spec.evaluation.split,
                len(runs),
                sum(run.result.accuracy for run in runs) / len(runs),
            )
            for cell, runs in self.cells().items()
        )
        return (Table("cells", str(self.folder), columns, rows),)
