"""Runs that a study beside this one has made already are copied instead of made again. No torch here.

A run is taken only if it would be the same here and now. Its identity and its fingerprint are the same, and the files
of its base are known to be the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.models.base_files import base_digests
from capacity.runs import study_folder
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.items import read_items, write_items
from capacity.runs.study import Run, Study
from capacity.spec.run import RunSpec


@dataclass(frozen=True)
class Reused:
    """Some runs of a study are copies of runs of another one.

    Attributes:
        study: the folder of the other study.
        runs: how many runs were copied from it.
    """

    study: Path
    runs: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {"study": str(self.study), "runs": self.runs}


def siblings(study: Study) -> list[Study]:
    """Returns the other studies in the folder that holds a study, by name. Folders without a marker are left out."""
    parent = study.folder.parent
    if not parent.is_dir():
        return []
    own = study.folder.resolve()
    folders = sorted(path for path in parent.iterdir() if study_folder.is_marked(path))
    return [Study(folder) for folder in folders if folder.resolve() != own and study_folder.is_study(folder)]


def found_beside(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint
) -> Iterator[tuple[RunSpec, Study, Run]]:
    """Yields the runs that a study lacks and a sibling has, each once, with the sibling.

    Stale runs are left out, and so are runs that cannot be read: the study then makes them itself.
    """
    lacking = [spec for spec in specs if not study.path_of(spec).is_dir()]
    others = siblings(study) if lacking else []
    held = [(spec, [other for other in others if other.path_of(spec).is_dir()]) for spec in lacking]
    bases = base_digests(spec.model for spec, holders in held if holders)
    for spec, holders in held:
        for other in holders:
            run = _read(other, spec)
            if run is not None and run.fingerprint == fingerprint and _same_base(run, bases[spec.model]):
                yield spec, other, run
                break


def adopt_siblings(study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint) -> tuple[Reused, ...]:
    """Copies runs that siblings have into a study, each in one step. The caller holds the lock of the study.

    Raises:
        DataError: if the study cannot be written.
    """
    copied = []
    for _, other, run in found_beside(study, specs, fingerprint):
        try:
            items = read_items(other.folder, run.result.items_digest)
        except DataError:
            continue  # a damaged neighbour: this study makes the run itself
        try:
            if items:
                write_items(study.folder, tuple(items.values()))
            study.adopt(run)
        except OSError as error:
            raise DataError(f"{study.folder} cannot be written: {error.strerror}") from None
        copied.append(Reused(other.folder, 1))
    return merged(copied)


def merged(reused: Iterable[Reused]) -> tuple[Reused, ...]:
    """Adds up what was copied from each study at several times."""
    counts: Counter[Path] = Counter()
    for one in reused:
        counts[one.study] += one.runs
    return tuple(Reused(study, runs) for study, runs in counts.items())


def reuse_sentence(reused: Sequence[Reused]) -> str:
    """Says where copied runs come from: "9 runs are copies from capacity-studies/a: …"; empty if there are none."""
    if not reused:
        return ""
    runs = sum(one.runs for one in reused)
    places = ", ".join(f"{one.study} ({one.runs})" if len(reused) > 1 else str(one.study) for one in reused)
    what = "1 run is a copy" if runs == 1 else f"{runs} runs are copies"
    return f"{what} from {places}, made in this environment on this base."


def _read(study: Study, spec: RunSpec) -> Run | None:
    try:
        return study.read(study.path_of(spec))
    except (DataError, OSError):
        return None


def _same_base(run: Run, base_files: str | None) -> bool:
    """Tells whether a run is known to be of the base that is there now. In its own study a run need not be known so."""
    return base_files is not None and run.result.base_files == base_files
