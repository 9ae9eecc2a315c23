"""What a study measured, in a file that a project commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.errors import SpecError
from capacity.library.shown import Shown
from capacity.runs import study as folders
from capacity.runs.files import write_atomically
from capacity_analysis.check.baseline import Baseline
from capacity_analysis.check.matching import check_curves
from capacity_analysis.check.snapshot import snapshot
from capacity_reports.blocks import Block, Text


@dataclass(frozen=True, repr=False)
class WrittenBaseline(Shown):
    """A baseline that was written.

    Attributes:
        path: its file.
        measured: what it says.
        trials: runs of a tuning that were left out.
        bytes: of the file.
    """

    path: Path
    measured: Baseline
    trials: int
    bytes: int

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return sum(len(cell.runs) for cell in self.measured.cells)

    @property
    def line(self) -> str:
        """What it holds."""
        left = f" ({self.trials} trials of a tuning left out)" if self.trials else ""
        cells = len(self.measured.cells)
        return f"{self.path}: {self.runs} runs of {cells} methods and sizes{left}, {self.bytes:,} bytes"

    @property
    def blocks(self) -> Sequence[Block]:
        """The line."""
        return (Text((self.line,)),)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "baseline": str(self.path),
            "checksum": self.measured.checksum,
            "cells": len(self.measured.cells),
            "runs": self.runs,
            "trials_left_out": self.trials,
            "bytes": self.bytes,
        }


def baseline(
    study: str | Path | folders.Study, out: str | Path = "baseline.json", *, force: bool = False
) -> WrittenBaseline:
    """Writes what a study measured to a baseline file, for `capacity.check`.

    Args:
        study: study folder.
        out: the file to write.
        force: replace an older baseline; nothing else moves it.

    Raises:
        SpecError: there is a baseline already.
        DataError: the study is not whole, or is no guard: runs are missing, corrupt, or of different environments.
    """
    path = Path(out)
    if path.exists() and not force:
        raise SpecError(f"{path} exists already: --force moves the baseline")
    opened = study if isinstance(study, folders.Study) else folders.Study(Path(study))
    measured = snapshot(opened)
    check_curves(measured)
    text = measured.to_text()
    write_atomically(path, text)
    every = sum(folder.is_dir() for folder in opened.runs_folder.iterdir())
    kept = sum(len(cell.runs) for cell in measured.cells)
    return WrittenBaseline(path, measured, every - kept, len(text.encode()))
