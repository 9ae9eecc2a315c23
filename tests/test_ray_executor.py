"""What the Ray executor does without Ray: runs as bytes, the environment of nodes, resources, and what is refused."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from in_process import capacity as command
from small import SMALLEST, small_spec

from capacity.errors import CapacityError, DataError, SpecError
from capacity.plan.executors import ExecutorChoice
from capacity.plan.memory import run_memory
from capacity.runs import study_folder
from capacity.runs.fingerprint import current
from capacity.runs.items import read_items
from capacity.runs.study import Study
from capacity.studies.executors import ray_cluster
from capacity.studies.executors.checkpoint_bytes import checkpoints_of, keep_checkpoints
from capacity.studies.executors.node import NodeWorker
from capacity.studies.executors.parcel import Parcel, add_parcel
from capacity.studies.executors.ray_cluster import RayCluster, _has_room, check_installed
from capacity.studies.worker import JobMaker
from capacity.training.base import Bases
from capacity.training.checkpoint import read_checkpoint

EVERY_STEP = 1e-9  # minutes
SPECS = [small_spec("sft", seed=seed, model=SMALLEST) for seed in (0, 1)]


@pytest.fixture(scope="module")
def told() -> list[Any]:
    """What a worker on a node tells of two runs."""
    worker = NodeWorker(current("cpu", "fp32").model_dump_json(), 1.0)
    worker.bases = Bases("cpu")
    return [event for spec in SPECS for event in worker.make([spec.model_dump(mode="json")], {})]


def nothing(_: str) -> None:
    raise AssertionError("no run waits")


def test_a_run_travels_as_bytes(told: list[Any], tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    done = [event for event in told if event[0] == "done"]
    assert [event[2] for event in told if event[0] == "step"] == [1, 2] * 2
    with study.locked():
        accuracies = [add_parcel(study, spec, event[4], nothing) for spec, event in zip(SPECS, done, strict=True)]
    assert accuracies == [float(event[3]) for event in done] == [run.result.accuracy for run in study.runs()]
    assert [run.spec for run in study.runs()] == SPECS
    assert all(run.fingerprint == current("cpu", "fp32") for run in study.runs())
    assert read_items(study.folder, study.runs()[0].result.items_digest)


def test_bytes_that_were_changed_on_the_way_are_refused(told: list[Any], tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    parcel: Parcel = told[-1][4]
    changed = replace(parcel, files={**parcel.files, "metrics.jsonl": b"{}\n"})
    with study.locked(), pytest.raises(DataError, match=r"metrics\.jsonl"):
        add_parcel(study, SPECS[1], changed, nothing)
    assert study.runs_folder.is_dir() is False or study.runs() == []


def test_a_failure_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(JobMaker, "_records", broken)
    worker = NodeWorker(current("cpu", "fp32").model_dump_json(), 1.0)
    (event,) = worker.make([SPECS[0].model_dump(mode="json")], {})
    assert event[:4] == ("failed", SPECS[0].identity, 0, "RuntimeError: broken")
    assert event[4].startswith("Traceback")


def test_a_node_of_another_environment_is_refused() -> None:
    here = current("cpu", "fp32")
    other = here.model_copy(update={"versions": {**here.versions, "torch": "1.0"}})
    with pytest.raises(CapacityError, match=r"has another environment \(torch 1\.0 → .*\): install the same versions"):
        NodeWorker(other.model_dump_json(), 1.0).prepare()


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "needs Ray 2.60, which is not installed"), ("2.9.3", "needs Ray 2.60, and 2.9.3 is installed")],
)
def test_a_ray_that_is_absent_or_another_is_one_line(
    found: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(_: str) -> str:
        if found is None:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr(ray_cluster, "version", version)
    line = command(tmp_path, "compare", "--executor", "ray").refused(1)
    assert said in line
    assert line.rstrip().endswith(ray_cluster.INSTALL)
    assert list(tmp_path.iterdir()) == []


def test_the_version_of_the_tests_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "version", lambda _: "2.60.0")
    check_installed()


def test_resources_of_a_run_come_from_its_plan() -> None:
    peak = run_memory(SPECS[0]).peak
    node = RayCluster(4, ({"CPU": 4.0, "memory": float(peak)},))
    assert node._resources(SPECS) == {"num_cpus": 1, "num_gpus": 0, "memory": peak}
    assert _has_room(node.nodes[0], node._resources(SPECS))
    assert not _has_room({"CPU": 4.0, "memory": peak - 1.0}, node._resources(SPECS))
    assert not _has_room({"CPU": 0.5, "memory": float(peak)}, node._resources(SPECS))


@pytest.mark.parametrize(("workers", "share"), [(1, 1), (2, 1), (3, 1 / 2), (5, 1 / 3)])
def test_workers_share_the_gpus_of_a_cluster(workers: int, share: float) -> None:
    cluster = RayCluster(workers, ({"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}))
    assert (cluster.device, cluster.share) == ("cuda", share)
    assert cluster._resources(SPECS)["num_gpus"] == share
    assert cluster._resources(SPECS)["memory"] == run_memory(SPECS[0]).weights


def test_a_run_continues_on_another_node_from_the_checkpoint_that_came_as_bytes(tmp_path: Path) -> None:
    spec = small_spec("grpo", model=SMALLEST, steps=4)
    here = current("cpu", "fp32").model_dump_json()

    def made(minutes: float, checkpoints: dict[str, bytes]) -> list[Any]:
        worker = NodeWorker(here, 1.0, minutes)
        worker.bases = Bases("cpu")
        return list(worker.make([spec.model_dump(mode="json")], checkpoints))

    whole = made(EVERY_STEP, {})
    sent = [(event[1], event[4]) for event in whole if event[0] == "checkpoint" and event[4] is not None]
    assert {identity for identity, _ in sent} == {spec.identity}
    study = Study(tmp_path / "study")
    with study.locked():
        keep_checkpoints(study, [spec], {spec.identity: sent[0][1]})
        found = checkpoints_of(study, [spec, SPECS[0]])
        assert found == {spec.identity: sent[0][1]}
    note, *rest = made(60, found)
    reached = len(read_checkpoint(study_folder.checkpoint_of(study.folder, spec.short_id)).state.position.steps)
    assert (note[0], note[3]) == ("note", f"continues after step {reached} from its checkpoint")
    assert [event[2] for event in rest if event[0] == "step"] == list(range(reached + 1, 5))
    first, second = (next(event[4].files for event in told if event[0] == "done") for told in (whole, rest))
    for name in ("metrics.jsonl", "outcomes.jsonl", "update.safetensors"):
        assert first[name] == second[name]


def test_a_checkpoint_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    with study.locked():
        (study.folder / "checkpoints").write_text("in the way")
    with pytest.raises(DataError, match=r"checkpoints/.*: cannot be written: "):
        keep_checkpoints(study, SPECS, {SPECS[0].identity: b"checkpoint"})


def test_an_address_belongs_to_ray() -> None:
    with pytest.raises(SpecError, match="--ray ADDRESS is for --executor ray"):
        ExecutorChoice("local", (), "auto")
