"""Checkpoints: a killed run continues to the same bytes, and no checkpoint but its own is continued from."""

import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import killed
import numpy as np
import pytest
import torch
from small import SMALLEST, small_spec

from capacity.errors import DataError, SpecError
from capacity.runs import study_folder
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies import make
from capacity.studies.workers import Event, run_all
from capacity.training import checkpoints as module
from capacity.training.base import Bases
from capacity.training.checkpoint import read_checkpoint, write_checkpoint
from capacity.training.checkpoints import Checkpoints
from capacity.training.run import execute

EVERY_STEP = 1e-9  # minutes
GRPO = small_spec("grpo", model=SMALLEST, steps=3)


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(Path(killed.__file__)), str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert found.returncode == 0, found.stderr
    return folder, found.stdout.splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", killed.JOBS)
def test_a_run_killed_in_the_middle_of_a_step_continues_to_the_same_bytes(
    name: str, killed_runs: tuple[Path, list[str]]
) -> None:
    folder, lines = killed_runs
    assert f"{name} [0, {int(signal.SIGKILL)}, 0]" in lines
    whole = contents(folder / f"whole-{name}")
    assert len(whole) == 4 * len(killed.JOBS[name])
    assert contents(folder / f"continued-{name}") == whole


def test_each_killed_run_has_continued_after_its_last_complete_step(killed_runs: tuple[Path, list[str]]) -> None:
    expected = f"continues after step {killed.KILLED_AT} from its checkpoint"
    assert [line.endswith(expected) for line in killed_runs[1] if "continues" in line] == [True] * 8


def test_a_checkpoint_of_a_small_update_takes_kilobytes(killed_runs: tuple[Path, list[str]]) -> None:
    folder, _ = killed_runs
    path = study_folder.checkpoint_of(folder / "study-grpo", killed.JOBS["grpo"][0].short_id)
    assert path.stat().st_size < 12_000
    tensors = read_checkpoint(path).state.tensors
    assert sum(tensor.numel() for key, tensor in tensors.items() if key.startswith("trained/")) <= 100


class Told:
    """Remembers what is said of a run's checkpoint."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, _: RunSpec, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def bases() -> Bases:
    return Bases("cpu")


class Killed(Exception):
    """Stands for a kill, at a step."""


def left(study: Path, bases: Bases, spec: RunSpec = GRPO) -> Path:
    """The checkpoint that a run leaves which dies in its third step."""

    def die(step: Step) -> None:
        if step.step == 2:
            raise Killed

    study.mkdir(exist_ok=True)
    with pytest.raises(Killed):
        execute(spec, "cpu", die, bases=bases, checkpoints=Checkpoints(study, "here", EVERY_STEP, Told()))
    return study_folder.checkpoint_of(study, spec.short_id)


def steps_made(study: Path, bases: Bases, environment: str = "here", spec: RunSpec = GRPO) -> tuple[list[int], Told]:
    """The steps that a run makes which finds a checkpoint, and what is said of it."""
    told, steps = Told(), []
    execute(
        spec, "cpu", lambda step: steps.append(step.step), bases=bases,
        checkpoints=Checkpoints(study, environment, 60, told),
    )  # fmt: skip
    return steps, told


def test_only_the_missing_steps_are_made(tmp_path: Path, bases: Bases) -> None:
    left(tmp_path / "s", bases)
    assert steps_made(tmp_path / "s", bases)[0] == [2]


def test_the_time_before_the_kill_counts(tmp_path: Path, bases: Bases) -> None:
    path = left(tmp_path / "s", bases)
    found = read_checkpoint(path)
    assert 0 < found.seconds < 600
    write_checkpoint(path, replace(found, seconds=1000.0))
    record = execute(GRPO, "cpu", bases=bases, checkpoints=Checkpoints(tmp_path / "s", "here", 60, Told()))
    assert 1000 < (record.result.training_seconds or 0) < (record.result.wall_seconds or 0)


@pytest.mark.parametrize("field", ["run", "environment", "base"])
def test_a_checkpoint_of_something_else_is_left_out_and_a_line_says_so(
    field: str, tmp_path: Path, bases: Bases
) -> None:
    path = left(tmp_path / "s", bases)
    found = read_checkpoint(path)
    write_checkpoint(path, replace(found, origin=found.origin.model_copy(update={field: "other"})))
    steps, told = steps_made(tmp_path / "s", bases)
    assert steps == [0, 1, 2]
    assert told.texts[:1] == [f"its checkpoint {path} is of another {field}, so it starts over"]


def broken(content: bytes) -> list[bytes]:
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    return [b"", content[:40], content[: len(content) // 2], flipped, content.replace(b"checkpoint 1", b"checkpoint 2")]


@pytest.mark.parametrize("damage", range(5))
def test_a_broken_checkpoint_is_left_out_and_a_line_says_so(damage: int, tmp_path: Path, bases: Bases) -> None:
    path = left(tmp_path / "s", bases)
    path.write_bytes(broken(path.read_bytes())[damage])
    steps, told = steps_made(tmp_path / "s", bases)
    assert steps == [0, 1, 2]
    assert told.texts[:1] == [
        f"its checkpoint cannot be used, so it starts over: {path}: broken, or of another version"
    ]


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_the_run_goes_on(
    tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: Any) -> None:
        raise DataError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(module, "write_checkpoint", full)
    told, steps = Told(), []
    execute(
        GRPO, "cpu", lambda step: steps.append(step.step), bases=bases,
        checkpoints=Checkpoints(tmp_path, "here", EVERY_STEP, told),
    )  # fmt: skip
    assert steps == [0, 1, 2]
    assert [text.startswith("goes on without a checkpoint: ") for text in told.texts] == [True]


def test_a_step_draws_from_no_stream_that_a_checkpoint_lacks(bases: Bases) -> None:
    """A checkpoint holds the generators of the arm alone."""

    def streams() -> tuple[bytes, bytes]:
        return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr,return-value]

    for method in ("sft", "rft", "grpo", "random-reward"):
        seen: list[tuple[bytes, bytes]] = []
        spec = small_spec(method, model=SMALLEST, steps=3)  # type: ignore[arg-type]
        execute(spec, "cpu", lambda _, seen=seen: seen.append(streams()), bases=bases)  # type: ignore[misc]
        assert len(seen) == 3
        assert len(set(seen)) == 1


def made(folder: Path, specs: list[RunSpec], on_event: Any, together: bool = False) -> list[Event]:
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        on_event(event)

    study = Study(folder)
    jobs = [tuple(specs)] if together else None
    with study.locked():
        run_all(study, specs, current("cpu", "fp32"), 1, hear, jobs, EVERY_STEP)
    return events


def interrupt(event: Event) -> None:
    if event.kind == "step" and event.step == 3:
        raise KeyboardInterrupt


def test_workers_leave_checkpoints_when_the_study_is_interrupted_and_remove_those_of_finished_runs(
    tmp_path: Path,
) -> None:
    specs = [small_spec("grpo", seed=seed, model=SMALLEST, steps=40) for seed in (0, 1)]
    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        made(folder, specs, interrupt, together=True)
    assert len(list((folder / "checkpoints").iterdir())) == 2
    events = made(folder, specs, lambda _: None, together=True)
    notes = [event.message for event in events if event.kind == "note"]
    assert len(notes) == 2
    assert all(note.startswith("continues after step ") for note in notes)
    steps = [event.step for event in events if event.kind == "step"]
    assert len(steps) < 80
    assert max(steps) == 40
    assert not (folder / "checkpoints").exists()
    assert len(Study(folder).runs()) == 2


def test_a_killed_worker_continues_and_does_not_start_over(tmp_path: Path) -> None:
    killed_once: list[Any] = []

    def kill(event: Event) -> None:
        if event.kind == "step" and event.step == 3 and not killed_once:
            killed_once.extend(active_children())
            killed_once[0].kill()

    events = made(tmp_path / "s", [small_spec("sft", model=SMALLEST, steps=40)], kill)
    death, note = [event.message for event in events if event.kind == "note"]
    assert death.startswith("its worker process was killed by signal 9")
    assert note.startswith("continues after step ")
    assert [event.kind for event in events].count("done") == 1


def test_what_a_kill_leaves_of_a_checkpoint_is_removed_and_nothing_else(tmp_path: Path) -> None:
    study = Study(tmp_path / "s")
    with study.locked():
        pass
    folder = study.folder / "checkpoints"
    folder.mkdir()
    rest, own, other = (folder / name for name in (f".{'a' * 16}.checkpoint.17.tmp", f"{'a' * 16}.checkpoint", "notes"))
    for path in (rest, own, other):
        path.write_text("x")
    (study.runs_folder / ("b" * 16)).mkdir()
    complete = folder / f"{'b' * 16}.checkpoint"
    complete.write_text("x")
    with study.locked():
        assert sorted(folder.iterdir()) == sorted([own, other])


@pytest.mark.parametrize(("minutes", "trainer", "message"), [
    (-1, "loop", "give a number of minutes, or 0 for no checkpoints"),
    (float("nan"), "loop", "give a number of minutes"),
    (float("inf"), "loop", "give a number of minutes"),
    (5, "trl", "TRL's trainers start a killed run over"),
])  # fmt: skip
def test_minutes_that_cannot_be(minutes: float, trainer: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make._minutes(minutes, trainer)


def test_minutes_by_default() -> None:
    found = [make._minutes(None, "loop"), make._minutes(None, "trl"), make._minutes(0, "trl")]
    assert found == [5, 0, 0]
