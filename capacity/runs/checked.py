"""Remembers which runs of a large study have been checked, so that their files are not hashed and parsed again.

A run is known again by the place, size and times of each of its files. The time of the last change of a file cannot be
set by hand. What is remembered lies in the cache, and holds the graded answers too. A small study is always checked
anew, because that takes no time.
"""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capacity.cache import cache_folder
from capacity.errors import CapacityError, DataError
from capacity.runs import files
from capacity.runs.answers import Answers, unpacked
from capacity.version import __version__

LARGE = 100  # runs of a study at least for which it is worth it
_SETTLED_NS = 2 * 10**9  # a file changed more recently could change again within the same tick of the file system


@dataclass
class CheckedRuns:
    """The checked runs of one study.

    Attributes:
        path: the file in the cache.
        items: the names of items by their digest, as `Answers.items_digest` gives it.
        runs: by the name of a run its signature, the digest of its items, its samples an item, and its packed answers.
        new: True if a run was added.
    """

    path: Path
    items: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, tuple[str, str, int, str]] = field(default_factory=dict)
    new: bool = False

    @classmethod
    def of(cls, study: Path) -> "CheckedRuns":
        """Reads what is remembered of a study. What cannot be read counts as nothing."""
        place = hashlib.sha256(os.fsencode(study.resolve())).hexdigest()[:16]
        found = cls(cache_folder("checked") / f"{place}.json")
        with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
            stored: dict[str, Any] = files.read_json(found.path)
            if stored["version"] == __version__:
                found.items, found.runs = stored["items"], {name: tuple(row) for name, row in stored["runs"].items()}
        return found

    def answers(self, run: Path) -> Answers | None:
        """Returns the answers of a run if its files are what they were when it was checked; else None."""
        found = self.runs.get(run.name)
        if found is None or found[0] != _signature(run)[0]:
            return None
        _, digest, samples, packed = found
        items = tuple(self.items[digest])
        return Answers(items, unpacked(packed, len(items) * samples, str(self.path)).reshape(len(items), samples))

    def remember(self, run: Path, answers: Answers) -> None:
        """Remembers a run that has just been checked, unless its files have changed in the last moment."""
        signature, changed = _signature(run)
        if changed > time.time_ns() - _SETTLED_NS:
            return
        digest = answers.items_digest
        self.items.setdefault(digest, list(answers.items))
        self.runs[run.name] = (signature, digest, answers.correct.shape[1], answers.packed())
        self.new = True

    def save(self) -> None:
        """Writes what is remembered, if there is something new. A cache that cannot be written costs time alone."""
        if not self.new:
            return
        text = json.dumps({"version": __version__, "items": self.items, "runs": self.runs})
        with contextlib.suppress(OSError, CapacityError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(self.path, text)


def _signature(run: Path) -> tuple[str, int]:
    """Returns what tells the files of a run from changed ones, and when one of them was changed last, in ns."""
    facts, changed = [], 0
    with os.scandir(run) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            kind = status.st_mode
            facts.append((entry.name, kind, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            changed = max(changed, status.st_ctime_ns, status.st_mtime_ns)
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest(), changed
