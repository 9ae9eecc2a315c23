"""Entry point of `capacity`: the commands, and how errors end."""

import io
import sys
import warnings

import typer

from capacity.errors import CapacityError, DataWarning, Interrupted, SpecError
from capacity_cli.baseline import baseline
from capacity_cli.bits import bits
from capacity_cli.check import check
from capacity_cli.compare import compare
from capacity_cli.describe import describe
from capacity_cli.evaluate import evaluate
from capacity_cli.export import export
from capacity_cli.factors import factors
from capacity_cli.models import models
from capacity_cli.plan import plan
from capacity_cli.report import report
from capacity_cli.runs import runs
from capacity_cli.sweep import sweep
from capacity_cli.tasks import tasks
from capacity_cli.threshold import threshold

app = typer.Typer(
    help="How small an update teaches a language model a task, and does GRPO need a smaller one than SFT?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def version() -> None:
    """Print the version."""
    from capacity.version import __version__

    typer.echo(__version__)


for command in (
    compare,
    sweep,
    plan,
    runs,
    evaluate,
    tasks,
    models,
    export,
    factors,
    baseline,
    check,
    threshold,
    bits,
    describe,
    report,
    version,
):
    app.command()(command)

_INTERRUPTED = 130
# Click's own base of usage errors, wherever Typer keeps it.
_UsageError = typer.BadParameter.__mro__[1]


def main() -> None:
    """Runs the command line. Every expected error is one line on stderr: exit 2 for wrong input, 1 for the rest."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a minus sign must not end a command where there is no UTF-8
    warnings.formatwarning = _warning_line
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:  # Typer swallows Ctrl-C
            _fail("interrupted", _INTERRUPTED)
        sys.exit(code)
    except CapacityError as error:
        _fail(str(error), 2 if isinstance(error, SpecError) else 130 if isinstance(error, Interrupted) else 1)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror}", 1)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        if len(sys.argv) == 1:  # the help was shown
            sys.exit(2)
        _fail(" ".join(error.format_message().split()), 2)  # type: ignore[attr-defined]


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


def _fail(message: str, code: int) -> None:
    print(f"capacity: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
