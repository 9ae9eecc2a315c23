"""Files that contradict each other, hang a reader, overflow its stack, or do more in a spreadsheet than show."""

import ast
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capacity
from capacity.adapters.files import artifact
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.errors import DataError
from capacity.plan.models import model_shape
from capacity.runs import files
from capacity.runs.csv_cells import as_cell, from_cell
from capacity.runs.points import points, to_csv
from capacity.runs.study import Run, Study
from capacity.spec.result import Outcome
from capacity_analysis.check.snapshot import snapshot
from capacity_analysis.data.read import read_points
from capacity_reports.blocks import Column, Table
from capacity_reports.report import csv_text

CAPACITY = str(Path(sys.executable).parent / "capacity")
ROOT = Path(__file__).parent.parent
DEEP = "[" * 100_000


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return fakes.study_in(tmp_path)


@pytest.fixture
def run(study: Study) -> Run:
    outcomes = [Outcome(item=f"i{n}", correct=(c,), strict=(0,), lenient=(c,)) for n, c in enumerate((1, 0, 1, 1))]
    result = fakes.result(fakes.spec(), [1, 0, 1, 1], n_strict=0, n_lenient=3)
    return study.read(study.add(fakes.spec(), fakes.FINGERPRINT, result, [], outcomes, b"theta"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("accuracy", 0.76), ("n_correct", 4), ("n_items", 5), ("n_strict", 1), ("n_lenient", 2)],
)
def test_a_sealed_result_that_contradicts_the_outcomes_is_refused(
    study: Study, run: Run, field: str, value: float
) -> None:
    stored = files.read_json(run.folder / "result.json")
    files.write_json(run.folder / "result.json", {**stored, field: value})
    files.seal(run.folder)
    with pytest.raises(DataError, match=rf"result\.json says {field} {value} where outcomes\.jsonl has "):
        study.runs()


def test_sealed_outcomes_that_contradict_the_result_are_refused(study: Study, run: Run) -> None:
    files.write_records(run.folder / "outcomes.jsonl", fakes.outcomes([1, 1, 1, 1]))
    files.seal(run.folder)
    with pytest.raises(DataError, match=r"result\.json says n_correct 3 where outcomes\.jsonl has 4"):
        study.read(run.folder)


@pytest.mark.parametrize(
    "place", ["runs/{}/pipe", "runs/{}/result.json", "runs/{}/checksums.json", "plan.json", "failed/{}.json"]
)
def test_a_pipe_in_a_study_is_refused_and_hangs_nobody(study: Study, run: Run, place: str) -> None:
    path = study.folder / place.format(run.folder.name)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    command = [CAPACITY, "runs", str(study.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert path.name in done.stderr


def test_a_pipe_in_the_place_of_the_marker_hangs_nobody(study: Study) -> None:
    (study.folder / "capacity-study.json").unlink()
    os.mkfifo(study.folder / "capacity-study.json")
    with pytest.raises(DataError, match="neither empty nor a study folder"), study.locked():
        pass


def test_a_baseline_of_a_study_without_its_plan_is_refused(study: Study, run: Run) -> None:
    """Runs that fail are the worst ones. Without a plan a curve without them looks better than it is."""
    with pytest.raises(DataError, match=r"it has no plan\.json, so nobody can tell whether runs failed"):
        snapshot(study)
    study.write_plan([run.spec, fakes.spec(seed=1)])
    with pytest.raises(DataError, match="no result of sft 13 seed 1, which was planned"):
        snapshot(study)
    (study.folder / "plan.json").write_text(f"[{run.spec.canonical_json()}]")  # cut, but the failure is recorded
    assert len(snapshot(study).cells) == 1
    study.add_failure(fakes.spec(seed=1), "diverged", "")
    with pytest.raises(DataError, match="no result of sft 13 seed 1, which was planned"):
        snapshot(study)


def test_deeply_nested_files_are_refused_in_one_line(study: Study, run: Run, tmp_path: Path) -> None:
    (run.folder / "metrics.jsonl").write_text(DEEP)
    files.seal(run.folder)
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 1"):
        study.read(run.folder).steps  # noqa: B018
    (study.folder / "plan.json").write_text(DEEP)
    with pytest.raises(DataError, match=r"plan\.json: cannot be read"):
        study.plan()
    header = len(DEEP).to_bytes(8, "little") + DEEP.encode()
    with pytest.raises(DataError, match="not a readable update artifact"):
        artifact.read(header, "an artifact")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(header)
    (tmp_path / "model" / "config.json").write_text(DEEP)
    with pytest.raises(DataError, match=r"model\.safetensors: not a safetensors file"):
        WeightFolder(tmp_path / "model")
    with pytest.raises(DataError, match=r"config\.json: cannot be read as JSON"):
        model_shape(str(tmp_path / "model"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(DEEP)
    with pytest.raises(DataError, match=r"adapter_config\.json: cannot be read"):
        capacity.load(tmp_path / "adapter")


@pytest.mark.parametrize("package", ["capacity", "analysis", "reports", "cli"])
def test_no_text_is_read_or_written_in_the_encoding_of_the_locale(package: str) -> None:
    found = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = any(keyword.arg == "encoding" for keyword in node.keywords)
                if node.func.attr in ("read_text", "write_text") and not named:
                    found.append(f"{path}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", '=HYPERLINK("http://x")'])
def test_a_text_of_a_table_is_no_formula(text: str) -> None:
    table = Table("t", "T", (Column("a", "A"), Column("b", "B", "number")), ((text, -1.5),))
    (row,) = list(csv.DictReader(io.StringIO(csv_text(table), newline="")))
    assert row == {"a": f"'{text}", "b": "-1.5"}


@given(st.text())
def test_texts_are_read_back_as_they_were(text: str) -> None:
    assert from_cell(str(as_cell(text))) == text
    assert not str(as_cell(text)).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_points_of_a_study_with_the_name_of_a_formula_read_back_the_same(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path / "=1+1")
    named = study.folder.rename(tmp_path / "=cmd")
    run = fakes.add(Study(named), fakes.spec(), [1, 1, 1, 1, 1, 0, 0, 0])  # its answers start with "+" in base64
    table = tmp_path / "points.csv"
    table.write_text(to_csv(points(named.name, [run])), encoding="utf-8")
    (row,) = csv.DictReader(table.open(encoding="utf-8"))
    assert (row["study"], row["answers"][:2]) == ("'=cmd", "'+")
    direct, read = read_points(str(named)).frame, read_points(str(table)).frame
    assert json.loads(direct.to_json()) == json.loads(read.to_json())
