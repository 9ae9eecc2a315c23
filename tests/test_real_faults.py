"""Faults that the system makes: memory that the kernel refuses or takes back, a full disk, and one that is read-only.

Each needs powers that a machine may not give: control groups, or mounting. A test skips where it has not got them.
"""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path

import fakes
import pytest
from small import SMALLEST, small_spec

from capacity.errors import DataError
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.executors.local import local_executor
from capacity.studies.finished import add_finished, kept_study, record_failure
from capacity.studies.make import missing_runs
from capacity.studies.workers import Event
from capacity.training.run import RunRecord

GROUPS = Path("/sys/fs/cgroup")
SCANTY = 4 * 2**20  # bytes; the next step of a run needs more
GREEDY = small_spec("sft", model=SMALLEST, samples_per_prompt=256)
FRUGAL, LAST = (small_spec("sft", seed=seed, model=SMALLEST) for seed in (0, 1))


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group whose processes may take little more memory. The kernel kills one that takes more."""
    first = (GROUPS / "memory").is_dir()
    folder = (GROUPS / "memory" if first else GROUPS) / f"capacity-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if first else "memory.max"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(SCANTY))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group for memory can be made: {error}")
    yield folder
    folder.rmdir()


def made(study: Study, specs: list[RunSpec], on_event: Callable[[Event], None] = lambda _: None) -> list[Event]:
    """What is heard of runs, which one worker makes."""
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        on_event(event)

    with study.locked():
        fingerprint = current("cpu", "fp32")
        missing = missing_runs(study, specs, fingerprint)
        local_executor(1).run(study, [(spec,) for spec in missing], fingerprint, hear, 0)
    return events


def worker() -> int:
    (process,) = active_children()
    assert process.pid is not None
    return process.pid


def test_a_worker_that_the_kernel_kills_for_want_of_memory_costs_one_run(tmp_path: Path, memory_group: Path) -> None:
    study = Study(tmp_path / "study")

    def starve(event: Event) -> None:
        if event.kind == "start" and event.spec == GREEDY:
            (memory_group / "cgroup.procs").write_text(str(worker()))

    events = made(study, [GREEDY, FRUGAL], starve)
    killed = "its worker process was killed by signal 9, as it happens when memory runs out"
    assert [
        (event.kind, event.spec, event.message) for event in events if event.kind in ("note", "done", "failed")
    ] == [
        ("note", GREEDY, f"{killed}: it is made once more, after the others and alone"),
        ("done", FRUGAL, ""),
        ("failed", GREEDY, f"{killed}, 2 times in all"),
    ]
    assert [failure.message for failure in study.failures()] == [f"{killed}, 2 times in all"]
    assert [event.spec for event in made(study, [GREEDY, FRUGAL]) if event.kind == "done"] == [GREEDY]
    assert study.failures() == []


def test_a_worker_whom_the_system_refuses_memory_says_so_and_goes_on(tmp_path: Path) -> None:
    study = Study(tmp_path / "study")

    def starve(event: Event) -> None:
        if event.spec == GREEDY and event.kind in ("start", "failed"):
            used = int(Path(f"/proc/{worker()}/statm").read_text().split()[0]) * resource.getpagesize()
            limit = used + SCANTY if event.kind == "start" else resource.RLIM_INFINITY
            resource.prlimit(worker(), resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    events = made(study, [FRUGAL, GREEDY, LAST], starve)
    ends = [(event.kind, event.spec) for event in events if event.kind in ("done", "failed")]
    assert ends == [("done", FRUGAL), ("failed", GREEDY), ("done", LAST)]
    (failure,) = study.failures()
    assert failure.message.startswith("memory ran out while it was made: use fewer --workers, or free memory (")
    assert "\n" not in failure.message
    assert [event.spec for event in made(study, [FRUGAL, GREEDY, LAST]) if event.kind == "done"] == [GREEDY]


class Disk:
    """A small disk of its own, which can be filled and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self, room: int) -> None:
        """Leaves so many bytes."""
        status = os.statvfs(self.folder)
        self.ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - room)))

    def free(self) -> None:
        self.ballast.unlink()

    def write(self, allowed: bool) -> None:
        how = "remount,rw" if allowed else "remount,ro"
        subprocess.run(["mount", "-o", how, self.folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", folder], check=True)


SPEC = fakes.spec()


def record(spec: RunSpec = SPEC) -> RunRecord:
    return RunRecord(fakes.result(spec, [1, 0]), [], fakes.outcomes([1, 0]), b"theta" * 1000)


def silent(message: str) -> None:
    raise AssertionError(message)


def added(study: Study) -> str | None:
    """Adds a finished run, and returns what is said if there is no room for it."""
    try:
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)
    except DataError as error:
        return str(error)
    return None


ROOMS = range(0, 40960, 4096)  # bytes; the run takes less than the most of them


@pytest.mark.parametrize("room", ROOMS)
def test_a_disk_that_fills_at_any_file_of_a_run_leaves_nothing_half_written(room: int, disk: Disk) -> None:
    study = fakes.study_in(disk.folder)
    missing_runs(study, [SPEC], fakes.FINGERPRINT)
    disk.fill(room)
    said = added(study)
    assert said is not None or room > ROOMS[0]
    assert said is None or room < ROOMS[-1]
    if said is not None:
        assert said == (
            f"{study.folder} cannot be written: No space left on device: the finished run is kept in "
            f"{kept_study(study).path_of(SPEC)}, and the same command adds it once there is room"
        )
        assert study.runs() == []
        record_failure(study, SPEC, said, "")
        with pytest.raises(DataError, match="No space left on device"):
            missing_runs(study, [SPEC], fakes.FINGERPRINT)
    assert not list(study.folder.rglob("*.tmp"))
    assert not list(study.folder.glob("partial/*"))
    disk.free()
    with study.locked():
        assert missing_runs(study, [SPEC], fakes.FINGERPRINT) == []
    (run,) = study.runs()
    assert (run.result, run.outcomes()) == (record().result, tuple(record().outcomes))
    assert (run.folder / "update.safetensors").read_bytes() == b"theta" * 1000
    assert study.failures() == []


def test_a_study_on_a_disk_that_is_full_before_its_first_run_is_one_line(disk: Disk) -> None:
    disk.fill(0)
    with (
        pytest.raises(DataError, match=r"^\S+: cannot be written: No space left on device$"),
        Study(disk.folder / "study").locked(),
    ):
        pass
    disk.free()
    study = Study(disk.folder / "study")
    with study.locked():
        assert missing_runs(study, [SPEC], fakes.FINGERPRINT) == [SPEC]


def test_a_disk_that_becomes_read_only_keeps_finished_runs_elsewhere(disk: Disk) -> None:
    study = fakes.study_in(disk.folder)
    disk.write(False)
    with pytest.raises(DataError) as caught:
        add_finished(study, SPEC, fakes.FINGERPRINT, record(), silent)
    assert str(caught.value) == (
        f"{study.folder} cannot be written: Read-only file system: the finished run is kept in "
        f"{kept_study(study).path_of(SPEC)}, and the same command adds it once the folder can be written"
    )
    with pytest.raises(DataError, match="Read-only file system"), study.locked():
        pass
    disk.write(True)
    with study.locked():
        assert missing_runs(study, [SPEC], fakes.FINGERPRINT) == []
    assert [run.spec for run in study.runs()] == [SPEC]
