"""Results of other programs as a points table, for every analysis that reads one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.library.shown import Shown
from capacity.library.verdict import named_source, reading_of
from capacity.runs.files import write_atomically
from capacity.runs.points import to_csv
from capacity_analysis.evaluations.points import not_known, rows_of, table_of
from capacity_reports.blocks import Block, Text

POINTS = "points.csv"


@dataclass(frozen=True, repr=False)
class Imported(Shown):
    """A points table that was made from results of other programs.

    Attributes:
        points: the file.
        runs: how many rows it has.
        not_known: columns that no source and nobody said.
        remarks: what follows from what is not there, in words.
    """

    points: Path
    runs: int
    not_known: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def line(self) -> str:
        """How many runs, and where."""
        return f"{self.runs} run{'' if self.runs == 1 else 's'} in {self.points}"

    @property
    def blocks(self) -> Sequence[Block]:
        """The same, and what is not known."""
        unknown = (f"Not known: {', '.join(self.not_known)}.",) if self.not_known else ()
        return [Text((f"{self.line}.",)), Text((*unknown, *(f"{remark}." for remark in self.remarks)), bullets=True)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "points": str(self.points),
            "runs": self.runs,
            "not_known": list(self.not_known),
            "remarks": list(self.remarks),
        }


def import_results(
    *sources: str | Path,
    out: str | Path,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    metric: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Imported:
    """Writes results of other programs as a points table, `out`/points.csv. Nothing is guessed.

    Args:
        sources: as of `capacity.verdict`, or result files of PEFT's method_comparison, or a folder of these.
        out: the folder; made if it does not exist.
        facts: what sources do not say, by arm, "" for all: {"sft-13": {"method": "sft", "trained_parameters": "13"}}.
        metric: which of several grades to take.
        columns: of a table of outcomes, the names of its columns by what they mean.

    Raises:
        SpecError: something has to be said or chosen.
        DataError: a source that cannot be read, or `out` has such a table already.
    """
    path = Path(out) / POINTS
    if path.exists():
        raise DataError(f"{path}: is there already: give another --out")
    reading = reading_of(metric, columns)
    rows = [row for source in sources for row in rows_of(*named_source(source), reading, facts or {})]
    table = table_of(rows, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_csv(rows))
    return Imported(path, len(rows), not_known(rows), table.lacking)
