"""The live view: what runs are doing, told by their events, kept in a file, and shown by `capacity runs --watch`."""

import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from in_process import capacity as command

from capacity.errors import DataError
from capacity.runs import files
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies import live
from capacity.studies.live import NAME, Follower, Progress, followed, read_progress, weight
from capacity.studies.workers import Event
from capacity_cli import progress, watch

GRPO, SFT, BASE = fakes.spec("grpo"), fakes.spec("sft"), fakes.spec("base")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def step(spec: RunSpec, number: int, **metrics: object) -> Event:
    made = Step.model_validate({"step": number - 1, "loss": 1.25, "trained_tokens": 240, **metrics})
    return Event("step", spec, number, metrics=made)


def told(clock: Clock, *events: tuple[float, Event]) -> Follower:
    follower = Follower([GRPO, SFT, BASE], "results", "cpu", clock)
    for seconds, event in events:
        clock.now += seconds
        follower.hear(event)
    return follower


def test_a_run_in_training_shows_its_step_its_reward_and_its_pace() -> None:
    events = [(0.0, Event("start", GRPO)), (9.0, step(GRPO, 1, reward=0.25)), (2.0, step(GRPO, 2, reward=0.5))]
    follower = told(Clock(), *events[:2])
    (run,) = follower.progress().running
    assert (run.step, run.steps, run.phase, run.reward, run.loss) == (1, 2, "training", 0.25, 1.25)
    assert run.tokens_per_second is None
    (run,) = told(Clock(), *events).progress().running
    assert (run.phase, run.tokens_per_second) == ("evaluation", 120.0)


def test_the_phase_of_a_warm_start_is_named() -> None:
    warm = fakes.spec("sft+grpo")
    follower = Follower([warm], "results", "cpu", Clock())
    follower.hear(Event("start", warm))
    assert follower.progress().running[0].phase == "start"
    follower.hear(step(warm, 1, phase="sft"))
    assert follower.progress().running[0].phase == "sft"


def test_the_time_left_follows_the_pace_since_the_first_step() -> None:
    """The start of the worker took 90 seconds, and makes no step."""
    clock = Clock()
    follower = told(clock, (0.0, Event("start", GRPO)), (90.0, step(GRPO, 1)))
    assert follower.seconds_left is None
    clock.now += 3
    follower.hear(step(GRPO, 2))
    left = sum(map(weight, (GRPO, SFT, BASE))) - 2
    assert follower.seconds_left == pytest.approx(3 * left)


def test_finished_runs_count_with_their_accuracy() -> None:
    other = fakes.spec("grpo", seed=1)
    follower = told(
        Clock(), (0, Event("start", GRPO)), (0, Event("done", GRPO, accuracy=0.5)), (0, Event("start", other)),
        (0, Event("done", other, accuracy=0.75)), (0, Event("start", SFT)), (0, Event("failed", SFT, message="nan")),
    )  # fmt: skip
    found = follower.progress()
    assert (found.done, found.failed, found.accuracy, found.running) == (3, 1, {"grpo": 0.625}, ())
    assert watch.line(found) == "results on cpu: 3 of 3 runs have ended, 1 of them failed; grpo 62.5 %"


def test_progress_is_in_the_study_while_runs_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PAUSE", 0.0)
    with followed(tmp_path, [GRPO], "results", "cpu") as hear:
        hear(Event("start", GRPO))
        hear(step(GRPO, 1, reward=0.25))
        found = read_progress(tmp_path)
        assert found is not None
        assert watch.rows(found) == [(GRPO.label, "1/2", "training · reward 0.25")]
    assert read_progress(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_no_run_for_want_of_a_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: object) -> None:
        raise DataError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    with followed(tmp_path, [GRPO], "results", "cpu") as hear:
        hear(Event("start", GRPO))
    assert list(tmp_path.iterdir()) == []


def progress_of(process: int) -> Progress:
    found = Follower([GRPO], "results", "cpu").progress()
    return found.model_copy(update={"process": process})


def test_what_a_killed_command_has_left_is_not_taken_for_progress(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / NAME).write_text(progress_of(child.pid).model_dump_json())
    assert read_progress(tmp_path) is None
    (tmp_path / NAME).write_text(progress_of(os.getpid()).model_dump_json())
    assert read_progress(tmp_path) == progress_of(os.getpid())
    elsewhere = progress_of(child.pid).model_copy(update={"host": "another"})
    (tmp_path / NAME).write_text(elsewhere.model_dump_json())
    assert read_progress(tmp_path) == elsewhere


def test_watching_ends_with_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text(progress_of(os.getpid()).model_dump_json())
    monkeypatch.setattr(watch.time, "sleep", lambda _: (tmp_path / NAME).unlink())
    watch.watch(tmp_path)
    assert capsys.readouterr().out == (f"results on cpu: 0 of 1 runs have ended\n{tmp_path}: the runs have ended\n")
    watch.watch(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}: no command makes runs here now\n"


def test_the_progress_of_a_command_tells_accuracy_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with progress.RunProgress([GRPO, SFT], "results") as hear:
        bars = hear.__self__  # type: ignore[attr-defined]
        bars.follower.clock = clock
        hear(Event("start", GRPO))
        hear(step(GRPO, 1))
        clock.now += 60
        hear(step(GRPO, 2))
        hear(Event("note", GRPO, message="no effect"))
        hear(Event("done", GRPO, accuracy=0.625))
    note, done = capsys.readouterr().err.splitlines()
    assert note == f"{GRPO.label}: no effect"
    assert done.startswith(f"[1/2] {GRPO.label}: done, accuracy 62.5 % (about ")
    assert done.endswith(" left)")


def test_watching_goes_with_no_other_option(tmp_path: Path) -> None:
    done = command(tmp_path, "runs", str(tmp_path), "--watch", "--json", "--points", "points.csv")
    assert "--watch shows runs as they are made: leave out --points and --json" in done.refused(2)
