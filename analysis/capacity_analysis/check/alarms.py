"""Checks on every commit: a history file, and a budget of false alarms that repeated checks cannot overdraw.

Successive checks share the baseline, mostly the seeds, and often every bit of their runs. Their evidence is therefore
never multiplied. An e-process would take two hundred copies of one unlucky run for two hundred runs. The promise is an
expected number, which holds however checks depend on one another. Each check earns `rate` of level. A check whose
outcomes are not those of the baseline spends what was saved, at most `alpha`. It may call "worse" at that level only.
Suppose that the test errs with at most its level among the checks that do differ. Then the expected number of false
alarms in the first n checks is at most n × rate, by linearity. An identical check cannot alarm and spends nothing. So
on a machine that repeats itself, the first change that matters meets the full `alpha`, at check 1,000 as at check 10.
Without repetition every check has the level `rate`. It does not fall with time, as the levels of alpha spending and of
online false-discovery control do.

The levels depend on past checks only through whether they were identical, never on their p-values. Therefore the sum of
the levels bounds the expectation.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field

from capacity.errors import DataError
from capacity.spec.frozen import Frozen

VERSION = 1
_LOCK_SECONDS = 60


class Entry(Frozen):
    """One check in the history.

    Attributes:
        baseline: first 16 hex digits of its checksum.
        evidence: digest of baseline, answers, margin and alpha.
        verdict: the outcome.
        earned: level that the check added to the budget.
        spent: its own level; 0 where it judged nothing new.
    """

    version: int = VERSION
    baseline: str
    evidence: str
    verdict: str
    earned: Annotated[float, Field(ge=0)]
    spent: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Level:
    """What the history gives a check.

    Attributes:
        check: its number in the history, from 1.
        level: that it may call "worse" at.
        repeated: the same evidence was judged before, at this level.
    """

    check: int
    level: float
    repeated: bool


@dataclass(frozen=True)
class AlarmBudget:
    """At most `rate` expected false alarms a check; no check has a level above `alpha`."""

    alpha: float
    rate: float

    def saved(self, past: Sequence[Entry]) -> float:
        """Level in hand after these checks. Saving ends at `alpha`; a past that spent more leaves a debt."""
        wealth = 0.0
        for entry in past:
            wealth = min(self.alpha, wealth + entry.earned) - entry.spent
        return wealth

    def next_level(self, past: Sequence[Entry], evidence: str) -> Level:
        """What the next check gets.

        The same evidence again is not a new check, and keeps the level that it had. So a job that runs again neither
        draws anew nor spends anew. An identical check, which spent nothing, has no level to keep.
        """
        number = len(past) + 1
        for entry in past:
            if entry.evidence == evidence and entry.verdict != "identical":
                return Level(number, entry.spent, repeated=True)
        return Level(number, max(0.0, min(self.alpha, self.saved(past) + self.rate)), repeated=False)


class History:
    """An append-only file of checks, one JSON object a line. Hold it while a check is judged and recorded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[list[Entry]]:
        """The past checks, with the file locked against another check.

        Raises:
            DataError: in use, unreadable, or a line that is not an entry (its number is named).
        """
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise DataError(f"{self.path}: in use by another check: wait for it") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be locked: {error.strerror}") from None
        try:
            yield self._read()
        finally:
            lock.release()

    def append(self, entry: Entry) -> None:
        """Adds one line, in one write that is synced.

        Raises:
            DataError: it cannot be written.
        """
        line = (json.dumps(entry.model_dump(mode="json"), separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":  # an editor took it away
                    line = b"\n" + line
                if os.write(descriptor, line) != len(line):
                    raise DataError(f"{self.path}: the last line was cut off: is the disk full?")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _read(self) -> list[Entry]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from None
        lines = enumerate(text.splitlines(), start=1)
        return [self._entry(number, line) for number, line in lines if line.strip()]

    def _entry(self, number: int, line: str) -> Entry:
        try:
            raw: Any = json.loads(line)
            entry = Entry.model_validate(raw)
        except (ValueError, RecursionError):
            raise DataError(
                f"{self.path}: line {number} is not a check: restore the file, or remove it to start a new history"
            ) from None
        if entry.version != VERSION:
            raise DataError(f"{self.path}: line {number} has version {entry.version}, this program reads {VERSION}")
        return entry
