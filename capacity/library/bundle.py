"""Many trained updates of one base and recipe in a single file, which takes little more than their payloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.errors import DataError, MissingPathError, SpecError, unknown
from capacity.library.shown import Shown
from capacity.runs.files import write_atomically
from capacity.runs.study import Study
from capacity.studies.device import check_libraries
from capacity_analysis.data.where import runs_where
from capacity_reports.blocks import Block, Text


@dataclass(frozen=True, repr=False)
class Bundled(Shown):
    """A bundle that was written.

    Attributes:
        out: the file.
        updates: where each update came from, in the order of the bundle.
        payload_bytes: what the numbers of one update take, with the choice of its projection.
        bytes: of the file.
        bytes_alone: of the artifacts that the updates came from, all together.
    """

    out: Path
    updates: tuple[str, ...]
    payload_bytes: int
    bytes: int
    bytes_alone: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "out": str(self.out),
            "updates": list(self.updates),
            "payload_bytes": self.payload_bytes,
            "bytes": self.bytes,
            "bytes_per_update": self.bytes / len(self.updates),
            "bytes_alone": self.bytes_alone,
        }

    @property
    def line(self) -> str:
        """What was written, and what an update takes in it."""
        count = len(self.updates)
        return (
            f"{self.out}: {count:,} update{'' if count == 1 else 's'} in {self.bytes:,} bytes. An update takes "
            f"{self.bytes / count:,.1f} bytes, {self.payload_bytes:,} of them payload. Alone it takes "
            f"{self.bytes_alone / count:,.0f} bytes."
        )

    @property
    def blocks(self) -> Sequence[Block]:
        """The line."""
        return (Text((self.line,)),)


def bundle(
    updates: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    method: str | None = None,
    where: Sequence[str] = (),
) -> Bundled:
    """Writes updates of one base and one recipe into one file, with one header for all.

    The adapters may differ in their seeds alone. An update is known by its place, from 0. `capacity.export` takes one
    out again.

    Args:
        updates: native artifacts, run folders or study folders. Of a study, all trained runs on the test items are
            taken.
        out: the new file; named after the first update if None.
        method: of studies: only runs of this method.
        where: of studies: conditions on runs, each `field=value`.

    Raises:
        SpecError: if no run is meant.
        DataError: if there is no such update, if updates do not belong together, or if the file exists.
        CapacityError: if the libraries of training are absent.
    """
    named = [Path(updates)] if isinstance(updates, str | Path) else [Path(path) for path in updates]
    if not named:
        raise SpecError("a bundle needs at least one update")
    missing = next((path for path in named if not path.exists()), None)
    if missing is not None:
        raise MissingPathError(f"{missing}: no such file or folder")
    path = Path(out) if out is not None else Path(f"{named[0].resolve().stem}-bundle.safetensors")
    if path.exists():
        raise DataError(f"{path} exists already: choose another --out, or remove it")
    if not path.parent.is_dir():
        raise DataError(f"--out {path}: no folder {path.parent}")
    studies = [p for p in named if Study(p).runs_folder.is_dir()]
    if not studies and (method is not None or where):
        raise SpecError(f"{named[0]} is no study folder: --method and --where choose runs of a study")
    found = [p for each in named for p in (_of_study(each, method, where) if each in studies else [each])]
    check_libraries()
    from capacity.adapters.files.artifact import read_file
    from capacity.adapters.files.bundle import bundle as bundled
    from capacity.adapters.files.codec import payload_bytes
    from capacity.runs.files import ARTIFACT

    artifacts = [read_file(each) for each in found]
    data = bundled(artifacts)
    write_atomically(path, data)
    alone = sum((each / ARTIFACT if each.is_dir() else each).stat().st_size for each in found)
    return Bundled(path, tuple(map(str, found)), payload_bytes(artifacts[0].payload), len(data), alone)


def _of_study(folder: Path, method: str | None, where: Sequence[str]) -> list[Path]:
    """The folders of the trained runs of a study on the test items, in the order of the study.

    Raises:
        SpecError: if there is none.
    """
    runs = [r for r in Study(folder).runs() if r.spec.training is not None and r.spec.evaluation.split == "test"]
    if where:
        runs = [r for r in runs_where(folder, runs, where) if r.spec.training is not None]
    methods = {r.spec.method for r in runs}
    if method is not None and methods and method not in methods:
        raise unknown("method of this study", method, methods)
    found = [r.folder for r in runs if method in (None, r.spec.method)]
    if not found:
        raise SpecError(f"{folder}: no trained run is meant; `capacity runs {folder}` lists them")
    return found
