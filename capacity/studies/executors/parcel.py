"""A finished run as bytes, which travels between machines that share no file system."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from capacity.runs.items import items_path
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.finished import adopt_finished


@dataclass(frozen=True)
class Parcel:
    """A finished run.

    Attributes:
        files: the files of the run's folder, by name.
        digest: the name of the items that the run was asked.
        items: the file of these items; None if there is none.
    """

    files: dict[str, bytes]
    digest: str
    items: bytes | None


def packed(study: Study, spec: RunSpec) -> Parcel:
    """Returns a run of a study as bytes.

    Raises:
        DataError: if its folder is unreadable or corrupt.
    """
    run = study.read(study.path_of(spec))
    items = items_path(study.folder, run.result.items_digest)
    return Parcel(
        {path.name: path.read_bytes() for path in sorted(run.folder.iterdir())},
        run.result.items_digest,
        items.read_bytes() if items.is_file() else None,
    )


def add_parcel(study: Study, spec: RunSpec, parcel: Parcel, on_wait: Callable[[str], None]) -> float:
    """Adds a run that came as bytes to a study, after a check of every file, and returns its accuracy.

    Args:
        study: where to.
        spec: the spec of the run.
        parcel: the run.
        on_wait: a function that is called once, with the reason, if the run has to wait for room on a disk.

    Raises:
        DataError: if the bytes are corrupt, or the study cannot be written.
    """
    with TemporaryDirectory(prefix="capacity-") as place:
        source = Study(Path(place))
        folder = source.path_of(spec)
        folder.mkdir(parents=True)
        for name, content in parcel.files.items():
            (folder / Path(name).name).write_bytes(content)
        if parcel.items is not None:
            items = items_path(source.folder, parcel.digest)
            items.parent.mkdir()
            items.write_bytes(parcel.items)
        run = source.read(folder)
        adopt_finished(study, source, run, on_wait)
        return run.result.accuracy
