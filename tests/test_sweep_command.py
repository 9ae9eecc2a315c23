"""`capacity sweep` from a file to a points table, with real runs of the smallest model."""

import csv
import json
from pathlib import Path

import pytest
from in_process import Done, capacity

STUDY = """
name = "tiny"
question = "Does it run?"
[tuning]
rates = [0.001, 0.01]
extend = 0
[[grids]]
models = ["abacus-0.2m"]
methods = ["sft"]
sizes = [{ budget = 13 }]
rates = "tuned"
seeds = 1
[grids.protocol]
steps = 2
warmup_steps = 0
prompts_per_step = 2
samples_per_prompt = 2
test_items = 16
validation_items = 8
temperatures = [1.0]
"""


def run(folder: Path, *arguments: str) -> Done:
    return capacity(folder, "sweep", "--workers", "1", *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.toml").write_text(STUDY)
    done = run(folder, "tiny.toml", "--json", "--no-report")
    assert done.code == 0, done.err
    (folder / "first.json").write_text(done.out)
    return folder


def test_sweep_tunes_then_makes_what_is_reported(made: Path) -> None:
    result = json.loads((made / "first.json").read_text())
    study = made / "capacity-studies" / "tiny"
    assert Path(result["study"]) == Path("capacity-studies/tiny")
    assert [(row["method"], row["trained_parameters"], row["n_items"]) for row in result["sizes"]] == [
        ("base", 0, 16), ("sft", 13, 16),
    ]  # fmt: skip
    (arm,) = json.loads((study / "tuning.json").read_text())
    assert [trial["rate"] for trial in arm["trials"]] == [0.001, 0.01]
    rows = list(csv.DictReader((study / "points.csv").open()))
    assert sorted((r["method"], r["split"], r["seed"]) for r in rows) == [
        ("base", "test", "0"), ("base", "validation", "0"),
        ("sft", "test", "0"), ("sft", "validation", "1000"), ("sft", "validation", "1000"),
    ]  # fmt: skip
    assert {r["demonstrations"] for r in rows if r["method"] == "sft"} == {"worked&style_bits=4&style_shift=4"}
    assert all(float(r["flops"]) > 0 for r in rows if r["method"] == "sft")
    assert json.loads((study / "study.json").read_text())["question"] == "Does it run?"


def test_second_start_makes_nothing_again(made: Path) -> None:
    folder = made / "capacity-studies" / "tiny" / "runs"
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    first = json.loads((made / "first.json").read_text())
    assert first["report"] is None
    page = made / "capacity-studies" / "tiny" / "report.html"
    assert not page.exists()
    done = run(made, "tiny.toml", "--json")
    assert done.code == 0, done.err
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    result = json.loads(done.out)
    assert result["sizes"] == first["sizes"]
    assert (result["report"], result["report_error"]) == ("capacity-studies/tiny/report.html", None)
    assert "Does it run?" in page.read_text()


def test_a_pipe_cuts_no_number(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    done = run(made, "tiny.toml", "--no-report")
    assert done.code == 0, done.err
    rows = json.loads((made / "first.json").read_text())["sizes"]
    texts = ["{:.1f} ({:.1f} to {:.1f})".format(*(100 * row[k] for k in ("accuracy", "low", "high"))) for row in rows]
    assert [text for text in texts if text not in done.out] == []
    assert "…" not in done.out


def test_a_report_that_fails_is_said_and_fails_nothing(made: Path) -> None:
    page = made / "capacity-studies" / "tiny" / "report.html"
    page.unlink(missing_ok=True)
    page.mkdir()
    done = run(made, "tiny.toml")
    page.rmdir()
    assert done.code == 0, done.err
    last = done.out.splitlines()[-1]
    assert last.startswith("The report was not written: ")
    assert "report.html" in last


def test_dry_run_counts_the_runs_without_making_them(made: Path) -> None:
    done = run(made, "tiny.toml", "--dry-run", "--out", "elsewhere")
    assert done.code == 0
    assert "2 tuning runs (0 done)" in done.out
    assert "1 runs at tuned rates" in done.out
    assert not (made / "elsewhere").exists()


def test_file_that_is_wrong_ends_in_one_line(made: Path) -> None:
    (made / "wrong.toml").write_text(STUDY.replace('"sft"', '"stf"'))
    for name, message in (("wrong.toml", "did you mean sft"), ("nowhere.toml", "nowhere.toml: no such study file")):
        done = run(made, name)
        assert message in done.refused(2)
