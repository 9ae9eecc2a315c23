"""One error base: whatever a user can cause ends as a single line that says what, where and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class CapacityError(Exception):
    """Base of every error that `capacity` raises on purpose. `str(error)` is one line for the user."""


class SpecError(CapacityError):
    """A name, number or combination of options that cannot be planned."""


class BudgetError(SpecError):
    """A budget that no update meets, or one that cannot be read."""


class DataError(CapacityError):
    """Missing, unreadable or corrupt data: run folders, caches, artifacts, task files."""


class StudyLockedError(CapacityError):
    """Another process works on the same study folder."""


class EngineError(CapacityError):
    """The engine that samples is not installed, does not start, refuses an adapter, or is gone."""


class TrainingError(CapacityError):
    """A run that cannot give an honest result: its diagnosis."""


class RunsFailedError(CapacityError):
    """Runs of a study gave no result; the study has the diagnosis of each."""


def unknown(kind: str, name: str, known: Iterable[str]) -> SpecError:
    """The error for an unknown `name`: offers the nearest known names, or lists them all."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return SpecError(f"unknown {kind} {name!r}: did you mean {' or '.join(near)}?")
    return SpecError(f"unknown {kind} {name!r}: choose from {', '.join(names)}")
