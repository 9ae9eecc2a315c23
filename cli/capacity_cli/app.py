"""The commands of `capacity`, and how errors end."""

import io
import sys
import warnings
from typing import Annotated

import typer

from capacity.errors import CapacityError, DataWarning, Interrupted, MissingPathError, SpecError, by_interruption
from capacity_cli.baseline import baseline
from capacity_cli.bits import bits
from capacity_cli.certify import certify
from capacity_cli.check import check
from capacity_cli.compare import compare
from capacity_cli.describe import describe
from capacity_cli.doctor import doctor
from capacity_cli.evaluate import evaluate
from capacity_cli.export import export
from capacity_cli.express import express
from capacity_cli.factors import factors
from capacity_cli.help import epilog_of, grouped, panel_of
from capacity_cli.import_results import import_results
from capacity_cli.interrupts import CODE, Interrupts
from capacity_cli.models import models
from capacity_cli.plan import plan
from capacity_cli.prose import say
from capacity_cli.report import report
from capacity_cli.runs import runs
from capacity_cli.sweep import sweep
from capacity_cli.tasks import tasks
from capacity_cli.threshold import threshold
from capacity_cli.verdict import verdict
from capacity_cli.view import view

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> None:
    """Print the version."""
    from capacity.version import __version__

    typer.echo(__version__)


def _print_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _before(
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """How small an update teaches a language model a task, and does GRPO need a smaller one than SFT?"""


for command in (
    compare,
    sweep,
    plan,
    runs,
    tasks,
    models,
    report,
    view,
    threshold,
    bits,
    describe,
    evaluate,
    export,
    express,
    certify,
    factors,
    baseline,
    check,
    verdict,
    import_results,
    doctor,
    version,
):
    name = command.__name__.removesuffix("_results")  # "import" is no name of a function
    app.command(name, epilog=epilog_of(name), rich_help_panel=panel_of(name))(grouped(command))

# Click's own base of usage errors, wherever Typer keeps it.
_UsageError = typer.BadParameter.__mro__[1]


def main(interrupts: Interrupts | None = None) -> None:
    """Runs the command line. Every expected error is one line on stderr: exit 2 for wrong input, 1 for the rest.

    Args:
        interrupts: what handles Ctrl-C; None: Python.

    Raises:
        SystemExit: always.
        Exception: an error that nobody expected, unless Ctrl-C is its reason.
    """
    interrupts = interrupts or Interrupts()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a minus sign must not end a command where there is no UTF-8
    warnings.formatwarning = _warning_line
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        if code == CODE:  # Typer swallows Ctrl-C
            code = _said("interrupted", interrupts.code)
    except (Exception, KeyboardInterrupt) as error:
        ended = _end(error, asked=interrupts.asked)
        if ended is None:
            raise
        code = interrupts.code if ended == CODE else ended
    finally:
        interrupts.end()
    sys.exit(code)


def _end(error: BaseException, *, asked: bool) -> int | None:
    """The exit code of a command that an error ends, which is said in one line; None if nobody expected the error.

    Args:
        error: what ended the command.
        asked: Ctrl-C was pressed, so that it is the reason of any error.
    """
    message, code = str(error), 1
    if isinstance(error, Interrupted):
        code = CODE
    elif asked or isinstance(error, typer.Abort) or by_interruption(error):
        message, code = "interrupted", CODE
    elif isinstance(error, SpecError | MissingPathError):
        code = 2
    elif isinstance(error, BrokenPipeError):  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        return 1
    elif isinstance(error, OSError):
        message = f"{error.filename or 'file'}: {error.strerror}"
        code = 2 if isinstance(error, FileNotFoundError) else 1
    elif isinstance(error, _UsageError):
        if len(sys.argv) == 1:  # the help was shown
            return 2
        message, code = " ".join(error.format_message().split()), 2  # type: ignore[attr-defined]
    elif not isinstance(error, CapacityError):
        return None
    return _said(message, code)


def _said(message: str, code: int) -> int:
    for line in message.splitlines():
        say(f"capacity: {line}", sys.stderr)
    return code


_default_format = warnings.formatwarning


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Returns what stderr shows of a warning: one line of our own ones, and Python's lines of the others."""
    return (
        f"capacity: {message}\n"
        if category is DataWarning
        else _default_format(message, category, filename, lineno, line)
    )
