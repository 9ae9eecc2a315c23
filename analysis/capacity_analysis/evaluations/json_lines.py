"""JSON Lines, read one by one: a file of any length needs the memory of its longest line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capacity.errors import DataError


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with the numbers of their lines; empty lines are left out.

    Raises:
        DataError: a line is not a JSON object.
    """
    number = 0
    with path.open(encoding="utf-8") as file:
        try:
            for line in file:
                row = json.loads(line) if line.strip() else None
                number += 1
                if isinstance(row, dict):
                    yield number, row
                elif row is not None:
                    raise DataError(f"{path}: line {number}: not a JSON object")
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8 text") from None
        except (ValueError, RecursionError):
            raise DataError(f"{path}: line {number + 1}: not whole JSON, as if cut off or edited") from None
