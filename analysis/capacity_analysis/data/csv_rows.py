"""The rows of a CSV file as they are written: a field for each column, or the file is refused."""

import csv
from collections.abc import Iterator
from pathlib import Path

from capacity.errors import SpecError


def csv_rows(path: Path) -> Iterator[list[str]]:
    """Yields the header of a CSV file in UTF-8, and then its rows; rows without any text are none.

    Raises:
        SpecError: a row has more or fewer fields than the header, so that nobody knows which column they belong to.
        csv.Error, OSError, UnicodeDecodeError: not a CSV file in UTF-8.
    """
    before = csv.field_size_limit(max(path.stat().st_size, 1))  # the answers of a run are one field
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            rows = (row for row in reader if any(field.strip() for field in row))
            header = next(rows, [])
            yield header
            for number, row in enumerate(rows, start=1):
                if len(row) != len(header):
                    raise SpecError(
                        f"{path}: row {number} has {len(row)} fields and the header has {len(header)}: every row needs "
                        "a field for each column, and no more commas than the header"
                    )
                yield row
    finally:
        csv.field_size_limit(before)
