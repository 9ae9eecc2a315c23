"""A study folder that may not be written any more: finished runs are kept, and every error is one line."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest

from capacity.errors import DataError, Interrupted
from capacity.runs.study import Study
from capacity.studies.finished import adopt_kept, kept_study
from capacity.studies.make import Make, Wanted, make_study, missing_runs
from capacity.studies.worker import JobMaker
from capacity.studies.workers import run_all
from capacity.training.run import RunRecord

SPECS = [fakes.spec(seed=seed) for seed in range(3)]
WITHOUT_POWER = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


class Permission:
    """Takes the permission to write away from a study folder, and gives it back."""

    def take(self, folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o555)

    def give(self, folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


class PretendedPermission(Permission):
    """The same for root: whatever changes something below the folder is refused by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder: Path | None = None
        for name in ("mkdir", "rmdir", "unlink", "rename", "replace"):
            monkeypatch.setattr(os, name, self.refusing(getattr(os, name), lambda *_: True))
        monkeypatch.setattr(io, "open", self.refusing(io.open, lambda mode="r", *_: not mode.startswith("r")))

    def refusing(self, call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def refused(path: Any, *rest: Any, **options: Any) -> Any:
            below = self.folder is not None and self.folder in Path(str(path)).parents
            if below and writes(*rest) and (call is not os.unlink or os.path.lexists(path)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return call(path, *rest, **options)

        return refused

    def take(self, folder: Path) -> None:
        self.folder = folder

    def give(self, folder: Path) -> None:  # noqa: ARG002
        self.folder = None


@pytest.fixture(params=["pretended", pytest.param("real", marks=WITHOUT_POWER)])
def permission(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Permission]:
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("capacity.studies.make.environment", lambda *_: fakes.FINGERPRINT)
    found = PretendedPermission(monkeypatch) if request.param == "pretended" else Permission()
    yield found
    found.give(tmp_path / "study")


def begun(study: Study) -> None:
    """What a run that is not finished has in the study."""
    (study.folder / "partial" / SPECS[2].short_id).mkdir(parents=True)


def test_runs_that_are_finished_later_are_kept_and_join_their_study(tmp_path: Path, permission: Permission) -> None:
    told: list[Any] = []

    def produce(study: Study, _: Make) -> Wanted:
        fakes.add(study, SPECS[0], [1, 0])
        begun(study)
        worker = JobMaker(SimpleNamespace(send=told.append), study, fakes.FINGERPRINT)
        records = [RunRecord(fakes.result(s, [1, 0]), [], fakes.outcomes([1, 0]), b"theta") for s in SPECS[1:]]
        worker._records = lambda *_: records  # type: ignore[assignment, method-assign, return-value]
        permission.take(study.folder)
        worker.make(SPECS[1:], None)
        return Wanted(tuple(SPECS), ())

    made = make_study(tmp_path / "study", produce)
    assert ([run.spec for run in made.runs], made.failed) == (SPECS[:1], 2)
    for spec, (kind, identity, _, message) in zip(SPECS[1:], told, strict=True):
        kept = kept_study(made.study).path_of(spec)
        assert (kind, identity) == ("failed", spec.identity)
        assert "\n" not in message
        assert message.startswith(
            f"{made.study.folder} cannot be written: Permission denied: the finished run is kept in {kept}, "
            "and the same command adds it once the folder can be written"
        )
    with pytest.raises(DataError, match=r"Permission denied: make it writable for the finished run in "):
        adopt_kept(made.study, SPECS, None)
    permission.give(made.study.folder)
    with made.study.locked():
        assert missing_runs(made.study, SPECS, fakes.FINGERPRINT) == []


def test_why_the_work_ended_is_not_hidden(tmp_path: Path, permission: Permission) -> None:
    study = Study(tmp_path / "study")

    def interrupted() -> None:
        with study.locked():
            begun(study)
            permission.take(study.folder)
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted, match="interrupted"):
        interrupted()
    permission.give(study.folder)
    with study.locked():  # it was let go, and cleans up now
        assert not (study.folder / "partial").exists()


def test_a_study_that_may_not_be_written_is_refused_in_one_line(tmp_path: Path, permission: Permission) -> None:
    study = fakes.study_in(tmp_path)
    begun(study)
    permission.take(study.folder)
    with (
        pytest.raises(DataError, match=r"^study folder .* cannot be (written|locked): Permission denied$"),
        study.locked(),
    ):
        pass


def test_a_study_that_may_not_be_read_ends_its_runs_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Study) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Study, "check_there", refused)
    with pytest.raises(DataError) as raised:
        run_all(Study(tmp_path / "study"), SPECS, fakes.FINGERPRINT, 0, lambda _: None)
    assert str(raised.value) == (
        f"study folder {tmp_path / 'study'} cannot be read any more (Permission denied): make it readable, and the "
        "same command continues with the runs that could be kept in the cache"
    )
