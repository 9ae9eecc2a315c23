"""Worker processes: complete studies, failures, killed workers and killed parents."""

import json
import subprocess
import sys
import textwrap
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
from small import SMALLEST, small_spec

from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.workers import Event, run_all

DETERMINISTIC = ("spec.json", "fingerprint.json", "metrics.jsonl", "outcomes.jsonl", "update.safetensors")
SPECS = [small_spec(method, seed=seed, model=SMALLEST) for seed in (0, 1) for method in ("grpo", "sft")]


def make(folder: Path, specs: list[RunSpec], on_event: Any = lambda _: None, workers: int = 2) -> int:
    study, fingerprint = Study(folder), current("cpu", "fp32")
    with study.locked():
        missing = [s for s in specs if study.find(s, fingerprint)[0] == "missing"]
        return run_all(study, missing, fingerprint, workers, on_event)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything of a study's runs that must not depend on when and how they were made."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "runs").rglob("*"))
        if path.name in DETERMINISTIC
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "study"
    assert make(folder, SPECS) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(whole: Path) -> dict[str, bytes]:
    return contents(whole)


def test_all_runs_are_made_whatever_the_number_of_workers(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    events: list[Event] = []
    assert make(tmp_path / "s", SPECS, events.append, workers=1) == 0
    assert contents(tmp_path / "s") == uninterrupted
    assert [e.kind for e in events].count("done") == 4
    assert [e.step for e in events if e.kind == "step"] == [1, 2] * 4
    assert not (tmp_path / "s" / "partial").exists()


def test_a_failed_run_is_kept_with_its_diagnosis_and_the_others_are_made(tmp_path: Path) -> None:
    bad = small_spec("sft", "full", rate=1e30, model=SMALLEST)
    events: list[Event] = []
    assert make(tmp_path / "s", [bad, SPECS[1]], events.append, workers=1) == 1
    study = Study(tmp_path / "s")
    assert len(study.runs()) == 1
    (failure,) = study.failures()
    assert "the loss is nan" in failure.message
    assert "Traceback" in failure.traceback
    assert [e.message for e in events if e.kind == "failed"] == [failure.message]


def test_a_killed_worker_costs_one_attempt_not_the_run(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    killed = []

    def kill_once(event: Event) -> None:
        if event.kind == "step" and not killed:
            killed.append(True)
            active_children()[0].kill()

    assert make(tmp_path / "s", SPECS, kill_once) == 0
    assert killed
    assert contents(tmp_path / "s") == uninterrupted


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_executor import SPECS, make
if __name__ == "__main__":
    make(Path({folder!r}), SPECS, lambda e: print(e.kind, flush=True), {workers})
"""


def start(folder: Path, tmp_path: Path, workers: int) -> subprocess.Popen[str]:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), folder=str(folder), workers=workers))
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)


def test_after_kill_9_nothing_is_lost_or_made_twice(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = tmp_path / "s"
    parent = start(folder, tmp_path, workers=2)
    assert parent.stdout is not None
    for line in parent.stdout:
        if line.strip() == "done":
            break
    parent.kill()
    parent.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "runs").iterdir()}
    assert 1 <= len(kept) < 4
    # A run may still become complete in the moment until the orphaned workers notice.
    time.sleep(1.5)
    events: list[Event] = []
    make(folder, SPECS, events.append, workers=1)
    assert contents(folder) == uninterrupted
    assert {n: (folder / "runs" / n).stat().st_mtime_ns for n in kept} == kept
    assert [e.kind for e in events].count("done") <= 4 - len(kept)


def test_a_study_in_use_is_refused_and_free_again_after_kill_9(tmp_path: Path) -> None:
    from capacity.errors import StudyLockedError

    folder = tmp_path / "s"
    parent = start(folder, tmp_path, workers=1)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "start"
    with pytest.raises(StudyLockedError, match="is in use by another process"):
        make(folder, SPECS)
    parent.kill()
    parent.wait()
    with Study(folder).locked():
        pass


def test_result_of_a_run_is_readable_json(whole: Path) -> None:
    found = [json.loads((run.folder / "result.json").read_text())["n_items"] for run in Study(whole).runs()]
    assert found == [16] * len(SPECS)


def test_the_parent_imports_no_torch_and_says_in_one_line_why_nothing_can_be_asked(tmp_path: Path) -> None:
    """A worker checks the prompts before the first run, and the parent has its error."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from small import SMALLEST, small_spec
from capacity.errors import CapacityError
from capacity.studies.executors.local import local_executor
from capacity.studies.make import Wanted, make_study
spec = small_spec("base", model=SMALLEST)
long = spec.model_copy(update={{"evaluation": spec.evaluation.model_copy(update={{"max_new_tokens": 64}})}})
for specs in ([long], [spec]):
    def produce(study, make):
        make(specs, "runs")
        return Wanted(tuple(specs), ())
    try:
        print(len(make_study(Path("study"), produce, executor=local_executor(1)).runs))
    except CapacityError as error:
        print(error)
    print(sorted({{"torch", "transformers", "peft"}} & sys.modules.keys()))
"""
    path = tmp_path / "script.py"
    path.write_text(f"if __name__ == '__main__':\n{textwrap.indent(script, '    ')}")
    command = [sys.executable, path]
    found = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    obstacle, first, made, last = found.stdout.splitlines()
    assert "context" in obstacle
    assert (first, made, last) == ("[]", "1", "[]")
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 1
