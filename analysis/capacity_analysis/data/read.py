"""Reads a points table from wherever it is: a file, a study folder, or the published figures that ship."""

import csv
from pathlib import Path

import pandas as pd

from capacity.errors import DataError, MissingPathError, SpecError
from capacity.runs.csv_cells import from_cell
from capacity.runs.mixed import refuse_mixed
from capacity.runs.study import Study
from capacity_analysis.data.csv_rows import csv_rows
from capacity_analysis.data.published import reference_points
from capacity_analysis.data.table import Points, from_frame, study_points
from capacity_analysis.evaluations.points import holds_results, points_of_results

_TABLES = (".csv", ".parquet")
_REFERENCE = "reference:"


def read_points(source: str, *, allow_mixed: bool = False) -> Points:
    """Reads a points table.

    Args:
        source: a CSV or Parquet file, a study folder, or `reference:NAME` (published figures that ship). Results of
            other programs are read too, if they say the method and the trained parameters of each run.
        allow_mixed: runs of a study that different environments made are taken together.

    Raises:
        SpecError: a kind of source that cannot be read, or a table that is not a points table. The message names the
            column and the row, counted from 1 without the header. So are results that do not say how they were trained.
        DataError: no such file or folder, an empty one, or runs that are corrupt.
    """
    if source.startswith(_REFERENCE):
        return reference_points(source.removeprefix(_REFERENCE))
    path = Path(source)
    if holds_results(path):
        return points_of_results(path)
    if path.is_dir():
        runs = Study(path).runs()
        refuse_mixed(runs, path, allow_mixed=allow_mixed)
        return study_points(path, runs)
    if not path.exists():
        raise MissingPathError(f"{source}: no such points table or study folder")
    if path.suffix.lower() not in _TABLES:
        raise SpecError(f"{source}: a points table is a .csv or .parquet file, a study folder, or reference:NAME")
    return from_frame(_read_table(path), source)


def _read_table(path: Path) -> pd.DataFrame:
    """A file as text columns (CSV) or as stored (Parquet)."""
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return _read_csv(path)
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs the package pyarrow") from None
    except (ValueError, OSError, csv.Error) as error:  # pyarrow's parser errors and those of UTF-8 are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a table: {reason}") from None


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as columns of text, row for row as it is written; rows without any text are none.

    Raises:
        SpecError: a row has more or fewer fields than the header, so that nobody knows which column they belong to.
        DataError: no header.
        csv.Error, OSError, UnicodeDecodeError: not a CSV file in UTF-8.
    """
    header, *rows = csv_rows(path)
    if not header:
        raise DataError(f"{path}: is empty")
    return pd.DataFrame([[from_cell(field) for field in row] for row in rows], columns=header, dtype="string")
