"""Each worker has one GPU. Several workers share a GPU where the memory of their runs allows it."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest
from in_process import capacity as command
from small import SMALLEST, small_spec

from capacity.errors import CapacityError, SpecError
from capacity.models import device_memory
from capacity.plan.executors import Executed, ExecutorChoice, parse_devices
from capacity.plan.memory import run_memory
from capacity.plan.study_file import parse_study
from capacity.plan.together import jobs
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.studies import workers
from capacity.studies.device import gpus
from capacity.studies.executors import local
from capacity.studies.executors.local import Local, local_executor
from capacity.studies.make import make_missing
from capacity.studies.preflight import Room, preflight
from capacity.studies.worker import JobMaker, work

STUDY = Path(__file__).parent.parent / "studies" / "smoke.toml"
GRID = {"models": ["abacus-0.2m"], "methods": ["sft"], "sizes": [{"budget": 1}], "rates": [0.01], "split": "validation"}


def working(pipe: Any, folder: str, *given: Any) -> None:
    """The life of a worker that notes the GPUs it may see when it makes a run."""
    make = JobMaker.make

    def noting(self: JobMaker, job: Any, bases: Any) -> None:
        for spec in job:
            (Path(folder).parent / f"{spec.short_id}.gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        make(self, job, bases)

    JobMaker.make = noting  # type: ignore[method-assign]
    work(pipe, folder, *given)


def test_two_gpus_get_a_run_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "work", working)
    monkeypatch.setattr(local, "gpus", lambda: ("4", "7"))
    specs = [small_spec("sft", seed=seed, model=SMALLEST) for seed in (0, 1)]
    study, executor = Study(tmp_path / "study"), local_executor()
    assert executor == Local(2, ("4", "7"), (0, 1))
    with study.locked():
        make_missing(study, specs, current("cpu", "fp32"), "", executor=executor)
    assert {(tmp_path / f"{spec.short_id}.gpu").read_text() for spec in specs} == {"4", "7"}
    assert [run.spec.seed for run in study.runs()] == [0, 1]


@pytest.mark.parametrize(
    ("visible", "found"), [(None, ("0", "1", "2")), ("5,3", ("5", "3")), ("GPU-a, GPU-b", ("GPU-a", "GPU-b"))]
)
def test_gpus_have_the_names_by_which_a_worker_asks_for_them(
    visible: str | None, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(found))
    assert gpus() == found


@pytest.mark.parametrize(
    ("count", "devices", "made"),
    [
        (None, (), Local(3, ("0", "1", "2"), (0, 1, 2))),
        (None, (2, 0), Local(2, ("2", "0"), (2, 0))),
        (4, (1, 2), Local(4, ("1", "2"), (1, 2))),
    ],
)
def test_workers_are_dealt_to_the_devices_that_are_asked_for(
    count: int | None, devices: tuple[int, ...], made: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "gpus", lambda: ("0", "1", "2"))
    assert local_executor(count, devices) == made


def test_workers_of_one_gpu_share_its_memory() -> None:
    shares = [workers._gpu(place, 5, ("0", "1")) for place in range(5)]
    assert shares == [("0", 1 / 3), ("1", 1 / 3), ("0", 1 / 3), ("1", 1 / 3), ("0", 1 / 3)]
    assert workers._gpu(0, 5, ()) == (None, 1.0)
    assert Local(5, ("0", "1"), (0, 1)).each == 3


def test_a_process_plans_with_its_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    held = {"free": 30, "reserved": 5, "share": 1.0}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (held["free"], 80))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: held["reserved"])
    monkeypatch.setattr("torch.cuda.get_per_process_memory_fraction", lambda _: held["share"], raising=False)
    gpu = torch.device("cuda:0")
    assert (device_memory.total_memory(gpu), device_memory.free_gpu_memory(gpu)) == (80, 35)
    held["share"] = 0.25
    assert (device_memory.total_memory(gpu), device_memory.free_gpu_memory(gpu)) == (20, 20)


@pytest.mark.parametrize(("name", "number"), [("cuda", 1), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_without_a_number_is_the_one_in_use(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    # Torch's own functions resolve the names. One of them refuses a GPU without a number.
    monkeypatch.setattr("torch.cuda.memory._lazy_init", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("torch.cuda.memory.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.cudart", lambda: SimpleNamespace(cudaMemGetInfo=lambda at: (30 + at, 80 + at)))
    monkeypatch.setattr("torch._C._cuda_getMemoryFraction", lambda _: 0.5, raising=False)
    monkeypatch.setattr("torch._C._cuda_memoryStats", lambda at: {"reserved_bytes.all.current": at}, raising=False)
    share = (80 + number) // 2
    assert device_memory.total_memory(name) == share
    assert device_memory.gpu_memory(torch.device(name)) == share
    assert device_memory.free_gpu_memory(torch.device(name)) == min(30 + 2 * number, share)


def test_more_workers_than_a_gpu_has_memory_for_are_an_obstacle(tmp_path: Path) -> None:
    specs = [small_spec("sft", seed=seed) for seed in range(4)]
    peak = run_memory(specs[0]).peak
    assert preflight(tmp_path, specs, "cuda", 8, Room(4 * peak, 4, "a GPU")).obstacles == ()
    (line,) = preflight(tmp_path, specs, "cuda", 8, Room(3 * peak, 4, "a GPU")).obstacles
    assert line.startswith("4 workers need ")
    assert line.endswith("use at most 3 workers for each")


def test_runs_together_leave_a_job_for_every_worker() -> None:
    specs = [small_spec("sft", seed=seed) for seed in range(10)]
    assert [len(job) for job in jobs(specs, None, 10**12)] == [10]
    assert [len(job) for job in jobs(specs, None, 10**12, workers=2)] == [5, 5]
    assert [len(job) for job in jobs(specs, 4, 10**12, workers=2)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--devices", "0,1"), "this machine has no GPU 0, 1; it has no GPU that torch can use"),
        (("--devices", "0,0"), "names GPU 0 twice"),
        (("--devices", "first"), "does not list numbers of GPUs"),
        (("--executor", "slurm"), "unknown executor 'slurm'"),
        (("--executor", "ray", "--devices", "0"), "--devices is for --executor local"),
        (("--executor", "local", "--ray", "auto"), "--ray ADDRESS is for --executor ray"),
    ],
)
@pytest.mark.parametrize("words", [("sweep", str(STUDY)), ("compare",), ("compare", "--dry-run")])
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    assert said in command(tmp_path, *words, *options).refused(2)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_named_among_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "gpus", lambda: ("0", "1"))
    with pytest.raises(SpecError, match=r"--devices 1,2: this machine has no GPU 2; its GPUs are 0, 1"):
        local_executor(None, (1, 2))


def test_a_study_file_names_its_executor_and_options_count_before_it() -> None:
    raw = {"name": "s", "grids": [GRID]}
    assert parse_study(raw, "s").executor_choice() == ExecutorChoice()
    file = parse_study({**raw, "executor": "ray", "ray": "10.0.0.1:6379"}, "s")
    assert file.executor_choice() == ExecutorChoice("ray", (), "10.0.0.1:6379")
    assert file.executor_choice(ray="auto") == ExecutorChoice("ray", (), "auto")
    assert file.executor_choice("local", (1,)) == ExecutorChoice("local", (1,))
    assert parse_study({**raw, "devices": [0, 1]}, "s").executor_choice() == ExecutorChoice("local", (0, 1))
    assert Executed().executor_choice(ray="auto") == ExecutorChoice("ray", (), "auto")
    assert parse_devices(" 0, 2") == (0, 2)
    with pytest.raises(CapacityError, match="names GPU 1 twice"):
        parse_study({**raw, "devices": [1, 1]}, "s")


def test_where_runs_are_made_is_no_part_of_what_they_are() -> None:
    assert "executor" not in fakes.spec().canonical_json()
