"""`capacity baseline`: write what a study measured to a file that a project commits."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity.errors import DataError, SpecError
from capacity_cli.options import Json


def baseline(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; commit it.")] = Path("baseline.json"),
    force: Annotated[bool, typer.Option("--force", help="Replace an older baseline.")] = False,
    json: Json = False,
) -> None:
    """Write what a study measured to a baseline file, for `capacity check`."""
    from capacity_cli.output import print_json

    try:
        written = capacity.baseline(study, out, force=force)
    except DataError as error:
        raise SpecError(str(error)) from None
    except OSError as error:  # a name that no file can have
        raise SpecError(f"{error.filename}: {error.strerror}") from None
    if json:
        print_json(written.to_json())
    else:
        print(f"{written.line}; commit it")
