"""What stands in the way of runs is told once, a line each; `capacity doctor` and `--dry-run` show it."""

import json
import os
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from small import SMALLEST, small_spec

import capacity
from capacity.errors import CapacityError, DataError, SpecError, raise_together
from capacity.plan import machine
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies import preflight as module
from capacity.studies.preflight import Room, check_obstacles, disk_bytes, hours, preflight

SFT = small_spec("sft", model=SMALLEST)
SPECS = [small_spec(method, seed=seed, model=SMALLEST) for method in ("sft", "grpo") for seed in (0, 1, 2)]


def obstacles(folder: Path, specs: list[RunSpec] = SPECS, workers: int = 2) -> tuple[str, ...]:
    return preflight(folder, specs, "cpu", workers).obstacles


def test_runs_that_can_be_made_have_no_obstacle(tmp_path: Path) -> None:
    found = preflight(tmp_path / "s", SPECS, "cpu", 4)
    check_obstacles(tmp_path / "s", SPECS, Room(machine.memory_bytes(), 4, "this machine"))
    assert (found.obstacles, found.downloads, found.hours) == ((), (), None)
    assert (found.runs, found.steps, found.answers, found.workers) == (6, 12, 96, 4)
    assert found.lines[0] == "6 runs to make on cpu by 4 workers: 12 training steps, 96 answers."
    assert found.lines[-1] == "How long they take is not known before a run of each model has been made here."


def test_runs_that_do_not_fit_are_one_line_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: 1_000_000)
    (line,) = obstacles(tmp_path)
    assert line.startswith(f"{SMALLEST}: ")


def test_more_workers_than_fit_are_told_with_the_number_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = preflight(tmp_path, SPECS, "cpu", 1).least_memory_bytes
    monkeypatch.setattr(module, "memory_bytes", lambda: int(2.5 * least))
    assert obstacles(tmp_path, workers=2) == ()
    (line,) = obstacles(tmp_path, workers=4)
    assert line.startswith("4 workers need ")
    assert line.endswith("use --workers 2")


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(map(disk_bytes, SPECS))
    monkeypatch.setattr(module, "free_bytes", lambda _: needed - 1)
    (line,) = obstacles(tmp_path)
    assert f"the disk of {tmp_path} has room for" in line
    monkeypatch.setattr(module, "free_bytes", lambda _: needed)
    assert obstacles(tmp_path) == ()


def test_folders_that_cannot_be_written_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "file" / "cache"))
    study, cache = obstacles(tmp_path / "file" / "study")
    assert study.startswith(f"the study folder {tmp_path / 'file' / 'study'} cannot be written")
    assert cache.startswith(f"the cache {tmp_path / 'file' / 'cache' / 'factors'} cannot be written")


def test_the_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine.memory_bytes()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_LIMITS", (limit,))
    for text, expected in (("max\n", None), ("12345678\n", 12345678)):
        limit.write_text(text)
        found = machine.memory_bytes()
        assert found == expected if expected else found >= whole


def test_hours_come_from_runs_of_the_same_model_in_the_folder_and_beside_it(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    made, wanted = fakes.spec("grpo"), [fakes.spec("grpo", seed=seed) for seed in (1, 2)]
    assert hours(study.folder, wanted, 1) is None
    fakes.add(study, made, [1, 0, 1, 1], wall_seconds=1800.0)
    assert hours(study.folder, wanted, 1) == pytest.approx(1.0)
    assert hours(tmp_path / "beside", wanted, 2) == pytest.approx(0.5)
    assert hours(tmp_path / "beside", [*wanted, SFT], 2) is None
    (study.path_of(made) / "result.json").write_text("{")
    assert hours(study.folder, wanted, 1) is None


def test_several_obstacles_are_one_error_with_a_line_each() -> None:
    with pytest.raises(SpecError, match=r"^a\nb$"):
        raise_together([SpecError("a"), SpecError("b"), SpecError("a")])
    with pytest.raises(CapacityError, match=r"^a\nb$") as caught:
        raise_together([SpecError("a"), DataError("b")])
    assert type(caught.value) is CapacityError
    error = DataError("alone")
    with pytest.raises(DataError) as found:
        raise_together([error])
    assert found.value is error
    raise_together([])


def test_the_prompts_of_each_model_and_task_are_one_line_whatever_the_number_of_runs() -> None:
    from capacity.training.preflight import check_runs

    def too_long(model: str, seed: int) -> RunSpec:
        spec = small_spec("base", model=model).model_copy(update={"seed": seed})
        return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"max_new_tokens": 64})})

    specs = [too_long(model, seed) for model in (SMALLEST, "abacus-0.9m") for seed in (0, 1, 2)]
    with pytest.raises(SpecError) as caught:
        check_runs(specs)
    assert 1 <= len(str(caught.value).splitlines()) <= 2


def test_doctor_tells_versions_memory_and_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache" / "data").mkdir(parents=True)
    (tmp_path / "cache" / "data" / "rows").write_bytes(b"x" * 1000)
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    found = capacity.doctor(tmp_path / "studies")
    assert found.versions["capacity"] == capacity.__version__
    assert found.versions["torch"] is not None
    assert found.caches["data"] == 1000
    assert found.cores >= 1
    assert "loop" in found.trainers
    assert (found.obstacles, len(found.devices)) == ((), 1)
    assert found.line.startswith("Runs can be made here, on ")
    assert json.loads(json.dumps(found.to_json()))["disk_bytes"].keys() == {
        str(tmp_path / "studies"),
        str(tmp_path / "cache"),
    }
    (tmp_path / "file").write_text("")
    refused = capacity.doctor(tmp_path / "file" / "studies")
    (line,) = refused.obstacles
    assert line.startswith(f"{tmp_path / 'file' / 'studies'} cannot be written")
    assert refused.line.startswith("1 obstacle to runs on ")
    both = replace(refused, obstacles=(line, line))
    assert both.line.startswith("2 obstacles to runs on ")


def test_a_cache_is_measured_while_its_files_and_folders_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "rows").mkdir(parents=True)
    (tmp_path / "data" / "kept").write_bytes(b"x" * 1000)
    (tmp_path / "data" / "gone").write_bytes(b"x")
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path))
    found = Path.lstat

    def vanishing(path: Path) -> Any:
        if path.name == "gone":
            path.unlink(missing_ok=True)
        return found(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    caches = capacity.doctor(tmp_path / "studies").caches
    assert (caches["data"], caches["models"]) == (1000, 0)

    scan = os.scandir

    def without_folders(path: Any) -> Any:
        if Path(path).name == "rows":
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", without_folders)
    assert capacity.doctor(tmp_path / "studies").caches["data"] == 1000


def test_a_study_with_an_obstacle_begins_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capacity.runs.fingerprint import current
    from capacity.studies import make, workers

    begun: list[Any] = []
    monkeypatch.setattr(workers, "run_all", lambda *given, **_: begun.append(given))
    full = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: full)
    study = Study(tmp_path / "s")
    with study.locked(), pytest.raises(CapacityError, match="make room, or choose another --out"):
        make.make_missing(study, SPECS, current("cpu", "fp32"), "")
    assert begun == []
