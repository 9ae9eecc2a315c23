"""Checkpoints of runs as bytes, which travel between machines that share no file system.

A worker on a node sends each checkpoint to the machine that has the study. The next worker gets it with its job.
"""

from collections.abc import Iterable, Mapping

from capacity.errors import DataError
from capacity.runs import files, study_folder
from capacity.runs.study import Study
from capacity.spec.run import RunSpec


def checkpoints_of(study: Study, specs: Iterable[RunSpec]) -> dict[str, bytes]:
    """Returns the checkpoints of those runs that have one, by the identity of the run.

    A checkpoint that cannot be read is left out, and its run starts over. The worker checks the content.
    """
    found = {}
    for spec in specs:
        path = study_folder.checkpoint_of(study.folder, spec.short_id)
        try:
            files.check_regular(path)
            found[spec.identity] = path.read_bytes()
        except (DataError, OSError):
            continue
    return found


def keep_checkpoints(study: Study, specs: Iterable[RunSpec], checkpoints: Mapping[str, bytes]) -> None:
    """Writes checkpoints of runs into a study. Each replaces an earlier one in one step.

    Args:
        study: where to.
        specs: the runs.
        checkpoints: their checkpoints, by the identity of the run. Runs without one are left out.

    Raises:
        DataError: if a file cannot be written.
    """
    for spec in specs:
        if spec.identity in checkpoints:
            path = study_folder.checkpoint_of(study.folder, spec.short_id)
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise DataError(f"{path}: cannot be written: {error.strerror}") from None
            files.write_atomically(path, checkpoints[spec.identity])
