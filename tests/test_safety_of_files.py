"""Files of other people: nothing is removed or written over that this program did not make."""

import json
from pathlib import Path

import fakes
import pytest
from in_process import capacity as cli

import capacity
from capacity.errors import DataError, SpecError
from capacity.models import pretrain
from capacity.plan.study_file import read_study_file
from capacity.runs import files
from capacity.runs.points import COLUMNS
from capacity.runs.study import Study
from capacity.runs.study_folder import MARKER
from capacity_reports.report import build_report, write_files

STUDY = """
name = "NAME"
[[grids]]
models = ["abacus-0.2m"]
"""


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def locked(folder: Path) -> None:
    with Study(folder).locked():
        pass


def test_a_sweep_into_a_folder_of_somebody_else_changes_nothing_there(tmp_path: Path) -> None:
    """`partial` is the name of a folder of ours, and of many others."""
    (tmp_path / "proj" / "partial").mkdir(parents=True)
    (tmp_path / "proj" / "partial" / "thesis.tex").write_text("x")
    (tmp_path / "study.toml").write_text(STUDY.replace("NAME", "one"))
    before = snapshot(tmp_path)
    done = cli(tmp_path, "sweep", "study.toml", "--out", "proj")
    assert done.refused(1) == (
        "capacity: proj: neither empty nor a study folder: choose another --out, so that nothing there is changed\n"
    )
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "/tmp/x"])
def test_a_study_is_not_named_by_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace("NAME", name))
    with pytest.raises(SpecError, match="cannot name the folder of a study"):
        read_study_file(tmp_path / "study.toml")


@pytest.mark.parametrize(
    "place",
    [
        "notes.txt", "runs/events.out.tfevents", "runs/0123456789abcdef/notes.txt", "plan.json", "failed/a.json",
        "study.json", MARKER, ".lock", ".lock/x",
    ],
)  # fmt: skip
def test_a_folder_with_anything_else_in_it_is_no_study(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text('["mine"]')
    before = snapshot(tmp_path)
    with pytest.raises(DataError, match="neither empty nor a study folder"):
        locked(tmp_path)
    assert snapshot(tmp_path) == before


def test_new_empty_and_older_studies_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty", "empty"):
        locked(tmp_path / name)
        assert json.loads((tmp_path / name / MARKER).read_text()) == {"format": "capacity study", "version": 1}
    study = fakes.study_in(tmp_path)
    run = fakes.add(study, fakes.spec(), [1])
    study.write_plan([fakes.spec()])
    (study.folder / "points.csv").write_text("of the sweep")
    for left in ("plan.json", "nothing"):  # older versions left no marker
        (study.folder / MARKER).unlink()
        (study.folder / left).unlink(missing_ok=True)
        locked(study.folder)
    assert study.runs() == [run]
    untouched = tmp_path / "interrupted before its first run"
    for folder in ("runs", "failed"):
        (untouched / folder).mkdir(parents=True)
    (untouched / ".lock").touch()
    locked(untouched)


def test_what_others_put_among_unfinished_runs_stays(tmp_path: Path) -> None:
    study, name = fakes.study_in(tmp_path), fakes.spec().short_id
    ours = study.folder / "partial" / name
    ours.mkdir(parents=True)
    for file in ("spec.json", "result.json", "thesis.tex"):
        (ours / file).write_text("x")
    (study.folder / "partial" / "draft").mkdir()
    (study.folder / "partial" / "draft" / "spec.json").write_text("x")
    (study.folder / "partial" / "notes.txt").write_text("x")
    locked(study.folder)
    left = {str(p.relative_to(study.folder / "partial")) for p in (study.folder / "partial").rglob("*") if p.is_file()}
    assert left == {f"{name}/thesis.tex", "draft/spec.json", "notes.txt"}
    with pytest.raises(DataError, match="not what this program has left there: move it away"):
        fakes.add(study, fakes.spec(), [1])
    assert (ours / "thesis.tex").is_file()


def test_a_link_to_other_files_is_not_followed_when_unfinished_runs_are_removed(tmp_path: Path) -> None:
    study, name = fakes.study_in(tmp_path), fakes.spec().short_id
    (tmp_path / "mine" / name).mkdir(parents=True)
    (tmp_path / "mine" / name / "spec.json").write_text("x")
    (study.folder / "partial").symlink_to(tmp_path / "mine")
    locked(study.folder)
    assert (tmp_path / "mine" / name / "spec.json").is_file()


def test_a_report_is_not_written_over_files_of_somebody_else(tmp_path: Path) -> None:
    found = build_report(["reference:tinylora-text"])
    for kind in ("html", "md", "json"):
        path = tmp_path / f"thesis.{kind}"
        path.write_text("mine")
        with pytest.raises(DataError, match="exists and was not made by this program"):
            write_files(found, tmp_path / "thesis.txt", ["html", "md", "json"])
        assert path.read_text() == "mine"
        path.unlink()
    (tmp_path / "thesis-csv").mkdir()
    (tmp_path / "thesis-csv" / "mine.csv").write_text("mine")
    with pytest.raises(DataError, match="thesis-csv exists and was not made by this program"):
        write_files(found, tmp_path / "thesis.html", ["html", "csv"])
    assert not (tmp_path / "thesis.html").exists()  # all targets are looked at first
    for _ in range(2):  # and its own files are replaced
        written = write_files(found, tmp_path / "again.html", ["html", "md", "json", "csv"])
    assert [path.name for path in written] == ["again.html", "again.md", "again.json", "again-csv"]


def test_a_points_table_is_not_written_over_another_table(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    fakes.add(study, fakes.spec(), [1])
    table = tmp_path / "table.csv"
    table.write_text("my,data\n1,2\n")
    refused = cli(tmp_path, "runs", "study", "--points", "table.csv").refused(1)
    assert "table.csv exists and was not made by this program" in refused
    assert table.read_text() == "my,data\n1,2\n"
    table.unlink()
    for _ in range(2):
        assert cli(tmp_path, "runs", "study", "--points", "table.csv").code == 0
    assert table.read_text().startswith(",".join(COLUMNS))


def test_a_model_is_not_trained_over_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SystemExit, match="is no model of this program"):
        pretrain.pretrain("abacus-0.2m", tmp_path, pretrain.Recipe(steps=1, learning_rate=1e-3))
    assert snapshot(tmp_path) == {"thesis.tex": b"x"}


def test_a_model_that_is_trained_again_replaces_its_own_files(tmp_path: Path) -> None:
    for seed in (0, 1):
        model, tokenizer = pretrain.build_model("abacus-0.2m", seed), pretrain.build_tokenizer()
        pretrain.save(model, tokenizer, pretrain.Recipe(steps=1, learning_rate=1e-3, seed=seed), tmp_path / "model")
        (tmp_path / "model" / "notes.txt").write_text("mine")
    assert json.loads((tmp_path / "model" / pretrain.RECIPE).read_text())["seed"] == 1
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_leaves_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="exists already"), files.new_folder(tmp_path / "out"):
        pass
    with pytest.raises(DataError, match="exists already"):
        capacity.export(tmp_path, out=tmp_path / "out")
    assert snapshot(tmp_path) == {"out/thesis.tex": b"x"}
