"""Large studies: files are checked once, large tables are printed as small ones, and a change is still seen."""

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import fakes
import pytest
from rich.console import Console
from typer.testing import CliRunner

from capacity.errors import DataError
from capacity.runs import checked, files
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity_cli.app import app
from capacity_reports.blocks import Column, Table
from capacity_reports.render import terminal


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("capacity.runs.study.LARGE", 2)
    study = fakes.study_in(tmp_path)
    for seed, correct in enumerate(([1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1])):
        fakes.add(study, fakes.spec(seed=seed), correct)
    return study


def settle(study: Study) -> None:
    """Lets the files of a study be older than what could change within a tick of the file system."""
    later = time.time_ns() + 10 * checked._SETTLED_NS
    checked.time.time_ns, kept = lambda: later, checked.time.time_ns  # type: ignore[assignment]
    try:
        study.runs()
    finally:
        checked.time.time_ns = kept  # type: ignore[assignment]


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    verify, found = files.verify, []

    def noted(folder: Path) -> None:
        found.append(folder.name)
        verify(folder)

    monkeypatch.setattr(files, "verify", noted)
    return found


def test_runs_are_hashed_and_parsed_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study.runs()
    settle(study)
    seen = hashed(monkeypatch)
    monkeypatch.setattr(files, "read_records", None)
    later = study.runs()
    assert seen == []
    assert [run.result for run in later] == [run.result for run in first]
    for a, b in zip(later, first, strict=True):
        assert a.answers.items == b.answers.items
        assert a.answers.correct.tolist() == b.answers.correct.tolist()
        assert a.answers.packed() == b.answers.packed()


def test_files_that_have_just_been_written_are_not_trusted(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.runs()
    seen = hashed(monkeypatch)
    study.runs()
    assert len(seen) == 3


@pytest.mark.parametrize("name", ["outcomes.jsonl", "result.json", "update.safetensors", "checksums.json"])
def test_a_file_that_changes_is_seen_even_with_its_size_and_time(name: str, study: Study) -> None:
    settle(study)
    path = study.path_of(fakes.spec(seed=1)) / name
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError):
        study.runs()


def test_a_file_that_is_added_is_seen(study: Study) -> None:
    settle(study)
    (study.path_of(fakes.spec(seed=1)) / "more").write_text("")
    with pytest.raises(DataError, match="unexpected file more"):
        study.runs()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 0}', '{"version": "x", "items": 1, "runs": {}}', "null"])
def test_a_memory_that_cannot_be_read_counts_as_none(text: str, study: Study) -> None:
    settle(study)
    (path,) = (Path(os.environ["CAPACITY_CACHE"]) / "checked").iterdir()
    assert len(json.loads(path.read_text())["runs"]) == 3
    path.write_text(text)
    assert len(study.runs()) == 3


def test_small_studies_are_always_checked(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(study)
    monkeypatch.setattr("capacity.runs.study.LARGE", 4)
    seen = hashed(monkeypatch)
    study.runs()
    assert len(seen) == 3


def printed(table: Table, width: int, *, terminal_: bool) -> str:
    text = io.StringIO()
    terminal.show([table], Console(file=text, width=width, force_terminal=terminal_, color_system=None))
    return text.getvalue()


@pytest.mark.parametrize("width", [40, 200])
@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_large_table_is_printed_as_a_small_one(
    width: int, on_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = (Column("run", "run"), Column("rate", "a long heading of rates", "number"), Column("what", "日本"))
    rows: list[tuple[Any, ...]] = [(f"run{n}", n / 7, "é" * (n % 5) + "日" * (n % 3)) for n in range(40)]
    table = Table("t", "Runs", columns, tuple(rows))
    usual = printed(table, width, terminal_=on_terminal)
    monkeypatch.setattr(terminal, "_MANY", 10)
    assert printed(table, width, terminal_=on_terminal) == usual


@pytest.mark.parametrize("options", [[], ["--json"], ["--points", "points.csv"]])
def test_listing_a_study_hashes_each_run_and_each_planned_spec_once(
    options: list[str], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = study.runs()
    with study.locked():
        study.write_plan([run.spec for run in runs])
    hashed: list[int] = []
    canonical = RunSpec.canonical_json
    monkeypatch.setattr(RunSpec, "canonical_json", lambda spec: (hashed.append(spec.seed), canonical(spec))[1])
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["runs", str(study.folder), *options]).exit_code == 0
    assert sorted(hashed) == sorted(2 * [run.spec.seed for run in runs])
