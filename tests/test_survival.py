"""Faults while a study is made: its folder is removed, memory runs out, weights change, an update has no effect."""

import errno
import os
import re
import shutil
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest
import torch
from small import SMALLEST, small_spec

from capacity.errors import DataError, TrainingError
from capacity.models import weights_digest as digests
from capacity.models.weights_digest import weights_digest
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.finished import add_finished, kept_study
from capacity.studies.make import missing_runs
from capacity.studies.worker import JobMaker
from capacity.studies.workers import Event, run_all
from capacity.training.base import Bases
from capacity.training.measure.effect import remarks_of
from capacity.training.run import RunRecord, execute

ROOT = Path(__file__).parent.parent


def made(folder: Path, specs: list[RunSpec], on_event: Any) -> list[Event]:
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        on_event(event)

    study = Study(folder)
    with study.locked():
        run_all(study, specs, current("cpu", "fp32"), 1, hear)
    return events


def kill_worker() -> None:
    (worker,) = active_children()
    worker.kill()


def record(spec: RunSpec) -> RunRecord:
    return RunRecord(fakes.result(spec, [1, 0]), [], fakes.outcomes([1, 0]), b"theta")


def test_a_study_whose_folder_is_removed_ends_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "s"

    def remove(event: Event) -> None:
        if event.kind == "step":
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(DataError) as caught:
        made(folder, [small_spec("sft", model=SMALLEST, steps=40)], remove)
    assert str(caught.value) == (
        f"study folder {folder} was lost while its runs were made (No such file or directory): "
        "the same command makes it again, with the runs that could be kept in the cache"
    )
    assert not folder.exists()


def test_a_run_that_ends_after_its_folder_was_removed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    study, spec = fakes.study_in(tmp_path), fakes.spec()
    shutil.rmtree(study.folder)
    with pytest.raises(DataError) as caught:
        add_finished(study, spec, fakes.FINGERPRINT, record(spec), lambda _: None)
    kept = kept_study(study).path_of(spec)
    assert str(caught.value) == (
        f"{study.folder} cannot be written: {os.strerror(errno.ENOENT)}: "
        f"the finished run is kept in {kept}, and the same command adds it"
    )
    assert not study.folder.exists()
    with study.locked():
        assert missing_runs(study, [spec], fakes.FINGERPRINT) == []
    assert [run.spec for run in study.runs()] == [spec]


def test_a_run_whose_worker_is_killed_is_made_last_and_alone_and_fails_after_the_second_time(tmp_path: Path) -> None:
    first, second = (small_spec("sft", seed=seed, model=SMALLEST, steps=20) for seed in (0, 1))

    def kill(event: Event) -> None:
        if event.kind == "step" and event.spec == first:
            kill_worker()

    events = made(tmp_path / "s", [first, second], kill)
    told = [(event.kind, event.spec.seed) for event in events if event.kind != "step"]
    assert told == [("start", 0), ("note", 0), ("start", 1), ("done", 1), ("start", 0), ("failed", 0)]
    killed = "its worker process was killed by signal 9, as it happens when memory runs out"
    assert [event.message for event in events if event.message] == [
        f"{killed}: it is made once more, after the others and alone",
        f"{killed}, 2 times in all",
    ]


@pytest.mark.parametrize("version", [2, "2"])
def test_a_study_of_a_later_version_is_refused_in_one_line(version: Any, tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    marker = study.folder / "capacity-study.json"
    marker.write_text(marker.read_text().replace('"version": 1', f'"version": {version!r}'.replace("'", '"')))
    message = f"a study of format version {version}, and this version of capacity reads 1"
    with pytest.raises(DataError, match=message):
        study.runs()
    with pytest.raises(DataError, match=message), study.locked():
        pass


@pytest.mark.parametrize("whole", [2**30, 0])
def test_the_digest_of_weights_sees_every_tensor(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "WHOLE_BYTES", whole)
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(300, 300), "b": torch.nn.BatchNorm1d(3)})
    before = weights_digest(model)
    assert weights_digest(model) == before
    for name, tensor in model.state_dict().items():
        for place in (0, -1):
            flat = tensor.view(-1)
            kept = flat[place].clone()
            flat[place] += 1
            assert weights_digest(model) != before, name
            flat[place] = kept
    assert weights_digest(model) == before


def test_a_large_model_is_digested_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1000, 1000, bias=False)
    whole, between = weights_digest(model), 20_000  # after the first block, before the middle one
    monkeypatch.setattr(digests, "WHOLE_BYTES", 0)
    blocks = weights_digest(model)
    with torch.no_grad():
        model.weight.view(-1)[between] += 1
    assert weights_digest(model) == blocks
    monkeypatch.undo()
    assert weights_digest(model) != whole


SFT = small_spec("sft", model=SMALLEST)


def test_a_run_during_which_frozen_weights_change_has_no_result_and_the_next_one_loads_them_anew() -> None:
    bases = Bases("cpu")
    right = execute(SFT, "cpu", bases=bases)

    def spoil(_: Any) -> None:
        next(bases.of(SFT.model).model.parameters()).data.view(-1)[0] += 1  # which autograd does not see

    with pytest.raises(TrainingError, match=f"the frozen weights of {SMALLEST} changed in memory during the run"):
        execute(SFT, "cpu", spoil, bases=bases)
    again = execute(SFT, "cpu", bases=bases)
    assert (again.artifact, again.outcomes, again.steps) == (right.artifact, right.outcomes, right.steps)


def test_a_result_says_how_many_steps_had_a_gradient_and_how_far_the_output_moved() -> None:
    record = execute(SFT, "cpu")
    assert record.result.gradient_steps == 2
    assert 1e-4 < (record.result.output_change or 0) < 100
    assert record.remarks == ()
    base = execute(small_spec("base", model=SMALLEST), "cpu").result
    assert (base.gradient_steps, base.output_change) == (None, None)


def test_steps_of_equal_rewards_have_no_gradient() -> None:
    record = execute(small_spec("sft+grpo", model=SMALLEST, steps=8, rates={"sft": 0.003, "grpo": 0.01}), "cpu")
    own = [step for step in record.steps if step.phase == "grpo"]
    assert len(own) == 4
    alive = [step for step in own if step.dead_groups != len(step.group_hits or ())]
    assert record.result.gradient_steps == len(alive)


def test_an_update_without_effect_is_said() -> None:
    record = execute(small_spec("sft", model=SMALLEST, rate=1e-30), "cpu")
    assert record.result.output_change == 0
    assert record.remarks == ("its stored update changes no output of the model at 8 prompts",)


def test_a_warm_start_after_which_nothing_had_a_gradient_is_said() -> None:
    result = fakes.result(fakes.spec("sft+grpo"), [1], gradient_steps=0, output_change=0.5)
    assert remarks_of(result) == (
        "no step after its warm start had a gradient, so its update is that of the warm start",
    )


def test_a_worker_tells_the_remarks_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    pipe = SimpleNamespace(send=lambda message: told.append((message[0], message[3])))
    worker, spec = JobMaker(pipe, fakes.study_in(tmp_path), fakes.FINGERPRINT), fakes.spec()
    found = RunRecord(fakes.result(spec, [1, 0]), [], fakes.outcomes([1, 0]), b"theta", remarks=("no effect",))
    monkeypatch.setattr(worker, "_records", lambda *_: [found])
    worker.make([spec], None)
    assert told == [("note", "no effect"), ("done", "0.5")]


def test_nothing_reads_the_clock_of_the_day_which_may_go_back() -> None:
    """Durations and what is left of them come from the monotonic clock."""
    reads = re.compile(r"time\.time\(|time_ns\(|datetime\.now|datetime\.today|from time import time\b")
    folders = ("capacity", "analysis", "reports", "cli")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [path.name for path in sources if reads.search(path.read_text(encoding="utf-8"))]
    assert found == ["checked.py"]  # which compares the times of files, and loses time alone if they are wrong
