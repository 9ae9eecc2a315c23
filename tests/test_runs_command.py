"""`capacity runs`: what it says of studies, and the points tables that it writes."""

import json
from importlib.util import find_spec

import fakes
import pytest
from console import assert_one_line, run_many

from capacity.runs.study import Study


def test_runs_of_a_missing_folder_end_in_one_line(capacity):
    done = capacity("runs", "nowhere")
    assert_one_line(done, 2)
    assert "nowhere: no such study folder" in done.stderr


LISTINGS = (
    "runs photos --json",
    "runs study --json",
    "runs study",
    "runs study --points study.csv",
    "runs study --points nowhere/study.csv",
    "runs mixed",
    "runs mixed --points refused.csv",
    "runs mixed --points mixed.csv --allow-mixed",
    "runs corrupt",
)


@pytest.fixture(scope="module")
def listings(tmp_path_factory):
    """What `capacity runs` says of a sound study, one of two environments, a corrupt one and no study."""
    folder = tmp_path_factory.mktemp("listings")
    (folder / "photos").mkdir()
    studies = {name: Study(folder / name) for name in ("study", "mixed", "corrupt")}
    for study in studies.values():
        with study.locked():
            fakes.add(study, fakes.spec("sft"), [1, 0, 1, 1])
            fakes.add(study, fakes.spec("base"), [1, 0, 0, 0])
            study.add_failure(fakes.spec("grpo"), "diverged at step 3", "")
    other = fakes.FINGERPRINT.model_copy(update={"sources": "t", "trainer": "loop"})
    fakes.add(studies["mixed"], fakes.spec("sft", 1), [1, 0, 1, 1], other)
    (studies["corrupt"].path_of(fakes.spec("sft")) / "result.json").write_text("{}")
    return run_many(LISTINGS, folder)[0], folder


def test_runs_of_a_folder_that_is_no_study_end_in_one_line(listings):
    done = listings[0]["runs photos --json"]
    assert_one_line(done, 1)
    assert "photos: not a study folder" in done.stderr


def test_runs_lists_runs_and_failures_as_json(listings):
    done = listings[0]["runs study --json"]
    assert (done.returncode, done.stderr) == (0, "")
    listing = json.loads(done.stdout)
    assert {(r["label"], r["accuracy"]) for r in listing["runs"]} == {
        ("sft 13 seed 0", 0.75),
        ("base T=1 seed 0", 0.25),
    }
    assert [f["message"] for f in listing["failures"]] == ["diverged at step 3"]


def test_runs_of_another_environment_are_stale_where_runs_can_be_made(listings):
    listing = json.loads(listings[0]["runs study --json"].stdout)
    expected = "stale" if find_spec("torch") else "complete"
    assert [r["state"] for r in listing["runs"]] == [expected] * 2


def test_runs_shows_runs_and_failures_to_people(listings):
    done = listings[0]["runs study"]
    assert (done.returncode, done.stderr) == (0, "")
    assert "sft 13 seed 0" in done.stdout
    assert any("75.0" in line.split() for line in done.stdout.splitlines())
    assert "failed: grpo 13 seed 0: diverged at step 3" in done.stdout
    assert "1 failed" in done.stdout


def test_runs_says_which_trainer_made_a_run(listings):
    listing = json.loads(listings[0]["runs study --json"].stdout)
    assert [r["trainer"] for r in listing["runs"]] == ["trl"] * 2
    lines = listings[0]["runs mixed"].stdout.splitlines()
    made = {
        " ".join(line.split()[1:5]): line.split()[-2] for line in lines if " seed " in line and "failed" not in line
    }
    assert made == {"sft 13 seed 0": "trl", "sft 13 seed 1": "loop", "base T=1 seed 0": "trl"}


def test_runs_writes_the_points_table(listings):
    assert listings[0]["runs study --points study.csv"].returncode == 0
    header, *rows = (listings[1] / "study.csv").read_text().splitlines()
    assert header.startswith("study,model,model_parameters,")
    assert len(rows) == 2


def test_points_that_cannot_be_written_end_in_one_line(listings):
    done = listings[0]["runs study --points nowhere/study.csv"]
    assert_one_line(done, 2)
    assert "nowhere" in done.stderr


def test_points_of_two_environments_are_refused_in_one_line(listings):
    done = listings[0]["runs mixed --points refused.csv"]
    assert_one_line(done, 1)
    assert "(sources, trainer trl → loop): use --allow-mixed" in done.stderr
    assert not (listings[1] / "refused.csv").exists()


def test_points_of_two_environments_are_written_if_allowed(listings):
    assert listings[0]["runs mixed --points mixed.csv --allow-mixed"].returncode == 0
    assert len((listings[1] / "mixed.csv").read_text().splitlines()) == 4


def test_corrupt_run_ends_in_one_line_that_names_the_file(listings):
    done = listings[0]["runs corrupt"]
    assert_one_line(done, 1)
    assert "result.json is corrupt" in done.stderr
