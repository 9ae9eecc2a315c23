"""Every error that a user can cause ends as a single line. It says what happened, where, and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

TERMINATED = 143  # the exit code of a process that SIGTERM has ended, by the convention of shells


class CapacityError(Exception):
    """Every error that `capacity` raises on purpose derives from this class. `str(error)` is one line."""


class SpecError(CapacityError):
    """A name, a number or a combination of options cannot be planned."""


class BudgetError(SpecError):
    """A budget cannot be read, or no update meets it."""


class DataError(CapacityError):
    """Data is missing, unreadable or corrupt: a run folder, a cache, an artifact or a task file."""


class MissingPathError(DataError):
    """A file or a folder that was named does not exist."""


class DataWarning(UserWarning):
    """The data of a task are less than they seem: rows are left out, or are too few. `str(warning)` is one line."""


class StudyLockedError(CapacityError):
    """Another process works on the same study folder."""


class EngineError(CapacityError):
    """The engine that samples is not installed, does not start, refuses an adapter, or has ended."""


class TrainingError(CapacityError):
    """A run cannot give an honest result. The message is the diagnosis."""


class RunsFailedError(CapacityError):
    """Runs of a study gave no result. The study holds the diagnosis of each."""


class Interrupted(CapacityError):
    """Ctrl-C or SIGTERM has ended the work; what was complete is kept."""


def by_interruption(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the reason of an error: libraries wrap the exception that hits them in errors of their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def unknown(kind: str, name: str, known: Iterable[str]) -> SpecError:
    """Returns the error for an unknown `name`. It offers the nearest known names, or lists all of them."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return SpecError(f"unknown {kind} {name!r}: did you mean {' or '.join(near)}?")
    return SpecError(f"unknown {kind} {name!r}: choose from {', '.join(names)}")


def raise_together(errors: Sequence[CapacityError]) -> None:
    """Raises some errors as one, whose text has a line for each different one. Without errors it returns.

    Raises:
        CapacityError: of the class of the errors if all have the same one.
    """
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    classes = {type(error) for error in errors}
    kind = classes.pop() if len(classes) == 1 else CapacityError
    raise kind("\n".join(dict.fromkeys(map(str, errors))))
