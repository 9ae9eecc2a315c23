"""A Ray cluster of two nodes on loopback: equal runs, a lost node, a lost driver, Ctrl-C, and what is refused.

Tests wait for what has to happen, for as long as a loaded machine may need. A failure shows what commands have said.
"""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from in_process import capacity as command
from ray._private import services
from ray.cluster_utils import Cluster

import capacity
from capacity.plan.study_file import parse_study
from capacity.runs.study import Study
from capacity.studies.workers import Event

PATIENCE = 600  # seconds
EVERY_STEP = 1e-9  # minutes
NODE = {"num_cpus": 1, "memory": 2 * 1024**3, "object_store_memory": 100 * 1024**2, "include_dashboard": False}
SAME = ("spec.json", "fingerprint.json", "metrics.jsonl", "outcomes.jsonl", "update.safetensors")
MEASURED = ("wall_seconds", "worker_peak_memory_bytes")  # of a run, as the machine was at that time
RAW = {
    "name": "nodes",
    "grids": [
        {
            "models": ["abacus-0.2m"],
            "methods": ["sft", "grpo"],
            "sizes": [{"budget": 13}],
            "rates": 0.003,
            "seeds": 3,
            "protocol": {
                "steps": 30, "warmup_steps": 0, "prompts_per_step": 8, "samples_per_prompt": 4, "test_items": 64,
            },
        }
    ],
}  # fmt: skip


def patient(get_node: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """Asks for a node until it is there. Ray itself gives it half a minute to start."""

    def asked(address: str, node: str) -> Any:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return get_node(address, node)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    return asked


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of a core each. Workers find the packages where this process does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(services, "get_node", patient(services.get_node))
    # A node replaces the way in which this process ends, so that SIGTERM would be an error of the test that runs.
    ending = signal.getsignal(signal.SIGTERM)
    made = Cluster()
    try:
        for _ in range(2):
            made._wait_for_node(made.add_node(wait=False, **NODE), PATIENCE)
        signal.signal(signal.SIGTERM, ending)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "study"
    capacity.sweep(RAW, workers=2, out=folder).made.check()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted([*folder.glob("runs/*/*"), *folder.glob("items/*")])
        if path.name in SAME or path.parent.name == "items"
    }


def points(folder: Path) -> list[dict[str, str]]:
    header, *rows = (folder / "points.csv").read_text().splitlines()
    names = header.split(",")
    kept = [name for name in names if name not in MEASURED]
    return [{name: row[name] for name in kept} for row in csv.DictReader([header, *rows])]


def heard(on_event: Callable[[Event], None]) -> Any:
    @contextmanager
    def observe(*_: Any) -> Iterator[Callable[[Event], None]]:
        yield on_event

    return observe


def test_a_node_is_lost_in_the_middle_and_the_points_are_those_of_local_workers(
    cluster: Any, local: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    second = cluster.worker_nodes.copy().pop()

    def lose(event: Event) -> None:
        events.append(event)
        if second in cluster.worker_nodes and event.kind == "step":
            reached = {e.spec.identity: e.step for e in events if e.kind == "step"}
            ended = {e.spec.identity for e in events if e.kind == "done"}
            training = [step for run, step in reached.items() if run not in ended]
            if len(training) == 2 and min(training) >= 3:  # each node trains, and has sent a checkpoint
                cluster.remove_node(second, allow_graceful=False)

    folder = tmp_path / "study"
    options = {"out": folder, "observe": heard(lose), "checkpoint_minutes": EVERY_STEP}
    made = capacity.sweep(RAW, ray=cluster.address, **options).made
    made.check()
    notes = [event for event in events if event.kind == "note"]
    (lost,) = [note for note in notes if "its worker was lost" in note.message]
    (continued,) = [note for note in notes if "from its checkpoint" in note.message]
    assert [e.spec for e in events if e.kind == "start"].count(lost.spec) == 2
    assert continued.spec == lost.spec
    (after,) = re.findall(r"continues after step (\d+) from its checkpoint", continued.message)
    assert int(after) >= 2
    again = [e.step for e in events[events.index(continued) :] if e.kind == "step" and e.spec == lost.spec]
    assert again == list(range(int(after) + 1, 31))
    assert [event.kind for event in events].count("done") == len(made.runs) == len(list(local.glob("runs/*")))
    assert contents(folder) == contents(local)
    assert points(folder) == points(local)
    assert "(raylet)" not in capfd.readouterr().err
    assert not list(folder.glob("partial/*"))
    assert not (folder / "checkpoints").exists()


def test_a_lost_driver_costs_no_complete_run_and_interrupted_ones_end_clean(
    cluster: Any, local: Path, tmp_path: Path
) -> None:
    folder, study = tmp_path / "study", tmp_path / "study.toml"
    study.write_text(
        'name = "nodes"\n[[grids]]\nmodels = ["abacus-0.2m"]\nmethods = ["sft", "grpo"]\nsizes = [{ budget = 13 }]\n'
        "rates = 0.003\nseeds = 3\n[grids.protocol]\nsteps = 30\nwarmup_steps = 0\nprompts_per_step = 8\n"
        "samples_per_prompt = 4\ntest_items = 64\n"
    )
    words = [sys.executable, "-m", "capacity_cli", "sweep", str(study), "--out", str(folder), "--ray", cluster.address]
    with begun(words) as driver:
        kept = first_runs(folder, driver)
        driver.kill()
    with begun(words) as again:
        more = first_runs(folder, again, besides=set(kept))
        again.send_signal(signal.SIGINT)
        said = again.communicate(timeout=PATIENCE)[1]
    assert again.returncode == 130, said
    assert said.splitlines()[-1].startswith("capacity: interrupted: ")
    assert "Traceback" not in said

    result = command(tmp_path, "sweep", str(study), "--out", str(folder), "--ray", cluster.address, "--no-report")
    assert result.code == 0, result.err
    assert {name: (folder / "runs" / name).stat().st_ino for name in {**kept, **more}} == {**kept, **more}
    assert contents(folder) == contents(local)


@contextmanager
def begun(words: list[str]) -> Iterator[Any]:
    """Begins a command. Whatever happens in the context, the command is over after it."""
    process = subprocess.Popen([*words, "--no-report"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_runs(folder: Path, driver: Any, besides: set[str] = frozenset()) -> dict[str, int]:  # type: ignore[assignment]
    """Waits for the first complete runs of a command, and returns their folders with their inodes."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = {path.name: path.stat().st_ino for path in folder.glob("runs/*") if path.name not in besides}
        if found:
            return found
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.1)
    driver.kill()
    raise AssertionError(f"no run was completed in {PATIENCE} seconds: {driver.communicate()}")


def test_a_cluster_of_its_own_makes_the_same_runs_and_is_gone_afterwards(local: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    before = raylets()
    made = capacity.sweep(parse_study({**RAW, "executor": "ray"}, "study"), workers=2, out=folder).made
    made.check()
    assert contents(folder) == contents(local)
    assert raylets() == before
    assert Study(folder).failures() == []


def raylets() -> set[str]:
    return {path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if "/raylet/raylet" in _text(path)}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    said = command(tmp_path, "compare", "--ray", "127.0.0.1:1", "--out", str(tmp_path / "s")).refused(1)
    assert "--ray 127.0.0.1:1: no Ray cluster can be joined there" in said
    said = command(tmp_path, "compare", "--ray", "ray://127.0.0.1:1", "--out", str(tmp_path / "s")).refused(2)
    assert "run this command on a node, with --ray auto" in said
