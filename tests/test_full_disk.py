"""Full disks: a finished run is kept until there is room, and whoever writes says where."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest

from capacity.cache import cache_folder
from capacity.errors import DataError
from capacity.runs import files
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.finished import add_finished, adopt_kept, kept_study, record_failure
from capacity.studies.make import missing_runs
from capacity.studies.worker import JobMaker
from capacity.training.run import RunRecord

SPEC = fakes.spec()


class Disk:
    """Folders without room: whatever is written below them fails as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: list[Path] = []
        self.code = errno.ENOSPC
        for name in ("write_json", "write_records", "_fsync"):
            monkeypatch.setattr(files, name, self.refusing(getattr(files, name)))

    def refusing(self, write: Any) -> Any:
        def refused(path: Path, *rest: Any) -> Any:
            if any(folder in path.parents for folder in self.full):
                raise OSError(self.code, os.strerror(self.code))
            return write(path, *rest)

        return refused


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    return Disk(monkeypatch)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return fakes.study_in(tmp_path)


def record(spec: RunSpec = SPEC) -> RunRecord:
    return RunRecord(fakes.result(spec, [1, 0]), [], fakes.outcomes([1, 0]), b"theta")


def silent(message: str) -> None:
    raise AssertionError(message)


def test_a_finished_run_is_kept_in_the_cache_and_joins_its_study_when_there_is_room(study: Study, disk: Disk) -> None:
    disk.full = [study.folder]
    with pytest.raises(DataError) as caught:
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)
    folder = kept_study(study).path_of(SPEC)
    assert str(caught.value) == (
        f"{study.folder} cannot be written: No space left on device: the finished run is kept in {folder}, "
        "and the same command adds it once there is room"
    )
    assert cache_folder("finished") in folder.parents
    assert not list(study.folder.glob("partial/*"))
    record_failure(study, SPEC, str(caught.value), "")
    assert [failure.message for failure in study.failures()] == [str(caught.value)]
    with pytest.raises(DataError, match="make room for the finished run in"):
        adopt_kept(study, [SPEC], fakes.FINGERPRINT)
    assert folder.is_dir()
    disk.full = []
    assert missing_runs(study, [SPEC, fakes.spec(seed=1)], fakes.FINGERPRINT) == [fakes.spec(seed=1)]
    (run,) = study.runs()
    assert (run.result, run.outcomes()) == (record().result, tuple(record().outcomes))
    assert study.failures() == []
    assert not folder.exists()
    assert missing_runs(study, [SPEC], fakes.FINGERPRINT) == []


def test_every_run_of_a_job_is_kept(study: Study, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that were made together are added one by one, and the first that has no room takes no other with it."""
    job, told = [fakes.spec(seed=seed) for seed in (0, 1, 2)], []
    worker = JobMaker(SimpleNamespace(send=told.append), study, fakes.FINGERPRINT)
    monkeypatch.setattr(worker, "_records", lambda *_: [record(spec) for spec in job])
    disk.full = [study.folder]
    worker.make(job, None)
    assert [(kind, identity) for kind, identity, _, _ in told] == [("failed", spec.identity) for spec in job]
    assert all(kept_study(study).path_of(spec).is_dir() for spec in job)


def test_a_kept_run_is_of_one_study_alone(study: Study, disk: Disk, tmp_path: Path) -> None:
    disk.full = [study.folder]
    with pytest.raises(DataError):
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)
    other = fakes.study_in(tmp_path / "other")
    assert missing_runs(other, [SPEC], fakes.FINGERPRINT) == [SPEC]


def test_a_finished_run_waits_in_memory_if_nothing_has_room(study: Study, disk: Disk) -> None:
    disk.full, told = [study.folder, cache_folder("finished")], []

    def make_room(message: str) -> None:
        told.append(message)
        disk.full = []

    add_finished(study, SPEC, fakes.FINGERPRINT, record(), make_room, pause=0)
    assert [run.spec for run in study.runs()] == [SPEC]
    (message,) = told
    assert message.startswith(
        f"{study.folder} cannot be written: No space left on device, and {kept_study(study).folder}"
    )
    assert message.endswith("the finished run waits in memory until there is room in one of them")


def test_what_no_room_can_mend_is_not_waited_for(study: Study, disk: Disk) -> None:
    disk.full, disk.code = [study.folder, cache_folder("finished")], errno.EACCES
    with pytest.raises(DataError, match="neither: Permission denied: the result of the run is lost"):
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)


def test_a_failure_that_cannot_be_recorded_is_still_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, _: str) -> None:
        raise DataError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(files, "write_atomically", refused)
    message = record_failure(study, SPEC, "diverged", "")
    assert message.startswith("diverged (no record of this failure could be left: ")
    assert str(study.folder) in message


def test_a_new_folder_on_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"exported cannot be written: No space left on device"),
        files.new_folder(tmp_path / "exported"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_kept_run_of_another_environment_stays_where_it_is(study: Study, disk: Disk) -> None:
    disk.full = [study.folder]
    with pytest.raises(DataError, match="is kept in"):
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)
    disk.full = []
    later = fakes.FINGERPRINT.model_copy(update={"device": "cuda"})
    assert missing_runs(study, [SPEC], later) == [SPEC]
    assert kept_study(study).path_of(SPEC).is_dir()
    assert missing_runs(study, [SPEC], later, allow_mixed=True) == []
