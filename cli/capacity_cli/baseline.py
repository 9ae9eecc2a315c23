"""`capacity baseline`: write what a study measured to a file that a project commits."""

from pathlib import Path
from typing import Annotated

import typer

from capacity.errors import DataError, SpecError
from capacity_cli.options import Json


def baseline(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; commit it.")] = Path("baseline.json"),
    force: Annotated[bool, typer.Option("--force", help="Replace an older baseline.")] = False,
    json: Json = False,
) -> None:
    """Write what a study measured to a baseline file, for `capacity check`."""
    from capacity.runs.files import write_atomically
    from capacity.runs.study import Study
    from capacity_analysis.check.matching import check_curves
    from capacity_analysis.check.snapshot import snapshot
    from capacity_cli.output import print_json

    try:
        if out.exists() and not force:
            raise SpecError(f"{out} exists already: --force moves the baseline")
        measured = snapshot(Study(study))
        check_curves(measured)
        text = measured.to_text()
        write_atomically(out, text)
    except DataError as error:
        raise SpecError(str(error)) from None
    except OSError as error:  # a name that no file can have
        raise SpecError(f"{error.filename}: {error.strerror}") from None
    runs = sum(len(cell.runs) for cell in measured.cells)
    trials = sum(path.is_dir() for path in Study(study).runs_folder.iterdir()) - runs
    if json:
        summary = {
            "baseline": str(out), "checksum": measured.checksum, "cells": len(measured.cells), "runs": runs,
            "trials_left_out": trials, "bytes": len(text.encode()),
        }  # fmt: skip
        print_json(summary)
        return
    left = f" ({trials} trials of a tuning left out)" if trials else ""
    print(
        f"{out}: {runs} runs of {len(measured.cells)} methods and sizes{left}, {len(text.encode()):,} bytes; commit it"
    )
