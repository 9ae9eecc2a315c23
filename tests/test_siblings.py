"""Runs of studies beside this one are copied if they are the same here and now, and never otherwise."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import FINGERPRINT
from in_process import capacity

from capacity.errors import DataError
from capacity.models.base_files import base_digest
from capacity.plan.grid import result_specs
from capacity.plan.study_file import read_study_file
from capacity.runs.study import Run, Study
from capacity.spec.run import RunSpec
from capacity.studies.make import Make, Wanted, make_study
from capacity.studies.siblings import Reused, found_beside, reuse_sentence

THREE, FIVE = ([fakes.spec(method, seed) for method in ("sft", "grpo") for seed in range(n)] for n in (3, 5))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the runs that were made and not copied, in an environment where runs are made up."""
    found: list[str] = []

    def make_up(study: Study, specs: Sequence[RunSpec], *_: Any, **__: Any) -> None:
        for spec in specs:
            if not study.path_of(spec).is_dir():
                add(study, spec)
                found.append(spec.label)

    monkeypatch.setattr("capacity.studies.make.environment", lambda *_: FINGERPRINT)
    monkeypatch.setattr("capacity.studies.ahead.environment", lambda *_: FINGERPRINT)
    monkeypatch.setattr("capacity.studies.make.make_missing", make_up)
    return found


def add(study: Study, spec: RunSpec, **changes: Any) -> Run:
    return fakes.add(study, spec, [1, 0, 1, 1], **{"base_files": base_digest(spec.model), **changes})


def sibling(folder: Path, specs: Sequence[RunSpec], **changes: Any) -> Study:
    study = Study(folder)
    with study.locked():
        for spec in specs:
            add(study, spec, **changes)
    return study


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wants(specs: Sequence[RunSpec]) -> Callable[[Study, Make], Wanted]:
    def produce(_: Study, make: Make) -> Wanted:
        make(specs, "runs")
        return Wanted(tuple(specs), ())

    return produce


def test_five_seeds_after_three_make_two_runs_an_arm(tmp_path: Path, made: list[str]) -> None:
    three = sibling(tmp_path / "three", THREE)
    five = make_study(tmp_path / "five", wants(FIVE), reuse=True)
    assert sorted(made) == sorted(spec.label for spec in FIVE if spec.seed >= 3)
    assert five.reused == (Reused(three.folder, 6),)
    assert [one.to_json() for one in five.reused] == [{"study": str(three.folder), "runs": 6}]
    assert five.failed == 0
    for spec in THREE:
        one, two = (files_of(study.path_of(spec)) for study in (three, five.study))
        assert one == two


def test_nothing_is_copied_unless_asked(tmp_path: Path, made: list[str]) -> None:
    sibling(tmp_path / "three", THREE)
    assert make_study(tmp_path / "again", wants(THREE)).reused == ()
    assert len(made) == len(THREE)


def test_runs_of_the_study_itself_are_no_copies(tmp_path: Path, made: list[str]) -> None:
    sibling(tmp_path / "study", THREE)
    assert make_study(tmp_path / "study", wants(THREE), reuse=True).reused == ()
    assert made == []


OTHERS = {
    "another environment": {"fingerprint": FINGERPRINT.model_copy(update={"sources": "other"})},
    "another base": {"base_files": "0" * 64},
    "a base that was not recorded": {"base_files": None},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_run_that_may_be_stale_is_made_again(tmp_path: Path, made: list[str], changes: dict[str, Any]) -> None:
    sibling(tmp_path / "other", THREE, **changes)
    assert make_study(tmp_path / "study", wants(THREE), reuse=True).reused == ()
    assert len(made) == len(THREE)


def test_a_corrupt_run_is_made_again_and_the_other_study_stays_as_it_is(tmp_path: Path, made: list[str]) -> None:
    other = sibling(tmp_path / "other", THREE)
    broken = other.path_of(THREE[0]) / "outcomes.jsonl"
    broken.write_text("{}\n")
    found = make_study(tmp_path / "study", wants(THREE), reuse=True)
    assert made == [THREE[0].label]
    assert found.reused == (Reused(other.folder, len(THREE) - 1),)
    assert broken.read_text() == "{}\n"


def test_a_folder_that_is_no_study_is_not_read(tmp_path: Path) -> None:
    other = sibling(tmp_path / "other", THREE)
    (other.folder / "capacity-study.json").unlink()
    study = Study(tmp_path / "study")
    assert list(found_beside(study, THREE, FINGERPRINT)) == []


def test_each_run_is_taken_from_one_study_and_the_sentence_names_all(tmp_path: Path, made: list[str]) -> None:
    one, two = sibling(tmp_path / "a", THREE[:2]), sibling(tmp_path / "b", THREE)
    found = make_study(tmp_path / "study", wants(FIVE), reuse=True)
    assert found.reused == (Reused(one.folder, 2), Reused(two.folder, 4))
    assert reuse_sentence(found.reused) == (
        f"6 runs are copies from {one.folder} (2), {two.folder} (4), made in this environment on this base."
    )
    assert len(made) == 4


STUDY_FILE = """
name = "tiny"
[[grids]]
models = ["abacus-0.2m"]
methods = ["sft"]
sizes = [{ budget = 13 }]
rates = 0.01
seeds = 3
[grids.protocol]
steps = 2
warmup_steps = 0
test_items = 4
validation_items = 4
temperatures = [1.0]
"""


@pytest.mark.usefixtures("made")
def test_the_dry_run_of_a_sweep_tells_which_runs_would_be_copied(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(STUDY_FILE)
    specs = result_specs(read_study_file(tmp_path / "tiny.toml"), {})
    trained = [spec for spec in specs if spec.training is not None]
    sibling(tmp_path / "capacity-studies" / "other", trained[:2])
    sibling(tmp_path / "capacity-studies" / "tiny", trained[2:])
    done = capacity(tmp_path, "sweep", "tiny.toml", "--dry-run")
    assert done.code == 0, done.err
    assert f"{len(specs)} other runs (1 done, 2 copied)" in done.out
    rows = [line for line in done.out.splitlines() if "sft" in line]
    assert [row.split()[-1] for row in rows] == ["copied", "copied", "complete"]
    found = json.loads(capacity(tmp_path, "sweep", "tiny.toml", "--dry-run", "--json").out)
    assert [run["state"] for run in found["runs"]] == ["copied", "copied", "complete", *["missing"] * (len(specs) - 3)]
    alone = json.loads(capacity(tmp_path, "sweep", "tiny.toml", "--dry-run", "--no-reuse", "--json").out)
    assert [run["state"] for run in alone["runs"]][:3] == ["missing", "missing", "complete"]
    counted = [(plan["preflight"]["runs"], plan["preflight"]["steps"]) for plan in (found, alone)]
    assert counted == [(len(specs) - 3, 0), (len(specs) - 1, 2 * 2)]  # two runs of two steps each are copied, or made
    assert len(list((tmp_path / "capacity-studies" / "tiny" / "runs").iterdir())) == 1


def test_neighbours_that_cannot_be_looked_into_are_left_out(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = sibling(tmp_path / "closed", THREE).folder
    looked = Path.is_file

    def refused(path: Path) -> bool:
        if closed in path.parents:
            raise PermissionError(13, "Permission denied")
        return looked(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert make_study(tmp_path / "own", wants(THREE), reuse=True).reused == ()
    assert len(made) == len(THREE)


def test_a_neighbour_with_damaged_items_is_left_out(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling(tmp_path / "damaged", THREE)

    def damaged(*_: Any) -> None:
        raise DataError("items/x.jsonl: damaged")

    monkeypatch.setattr("capacity.studies.siblings.read_items", damaged)
    assert make_study(tmp_path / "own", wants(THREE), reuse=True).reused == ()
    assert len(made) == len(THREE)
