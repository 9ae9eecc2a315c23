"""`capacity baseline`: write what a study measured to a file that a project commits."""

import json
from pathlib import Path

from capacity.errors import DataError, SpecError
from capacity.runs.files import write_atomically
from capacity.runs.study import Study
from capacity_analysis.check.matching import check_curves
from capacity_analysis.check.snapshot import snapshot


def baseline_command(folder: Path, out: Path, *, force: bool, as_json: bool) -> None:
    """Writes the baseline of a study; an older one is replaced only with `force`."""
    try:
        if out.exists() and not force:
            raise SpecError(f"{out} exists already: --force moves the baseline")
        baseline = snapshot(Study(folder))
        check_curves(baseline)
        text = baseline.to_text()
        write_atomically(out, text)
    except DataError as error:
        raise SpecError(str(error)) from None
    except OSError as error:  # a name that no file can have
        raise SpecError(f"{error.filename}: {error.strerror}") from None
    runs = sum(len(cell.runs) for cell in baseline.cells)
    trials = sum(path.is_dir() for path in Study(folder).runs_folder.iterdir()) - runs
    if as_json:
        summary = {
            "baseline": str(out), "checksum": baseline.checksum, "cells": len(baseline.cells), "runs": runs,
            "trials_left_out": trials, "bytes": len(text.encode()),
        }  # fmt: skip
        print(json.dumps(summary, indent=1))
        return
    left = f" ({trials} trials of a tuning left out)" if trials else ""
    print(
        f"{out}: {runs} runs of {len(baseline.cells)} methods and sizes{left}, {len(text.encode()):,} bytes; commit it"
    )
