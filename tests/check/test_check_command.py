"""`capacity baseline` and `capacity check` from options to files and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import guarded
import pytest
from checked import assert_one_line

from capacity.runs.study import Study
from capacity_analysis.check.baseline import read_baseline
from capacity_analysis.check.snapshot import snapshot


def test_baseline_writes_what_the_study_measured(study, capacity, tmp_path):
    folder = study("study")
    done = capacity("baseline", folder, "-o", "b.json")
    assert done.code == 0
    assert done.out.startswith("b.json: 13 runs of 4 methods and sizes, ")
    assert read_baseline(tmp_path / "b.json") == snapshot(Study(folder))


def test_baseline_moves_only_by_force(old, study, capacity, tmp_path):
    before = (tmp_path / "baseline.json").read_text()
    newer = study("newer", draw=1)
    assert_one_line(capacity("baseline", newer), "baseline.json exists already: --force moves the baseline")
    assert (tmp_path / "baseline.json").read_text() == before
    done = capacity("baseline", newer, "--force", "--json")
    summary = json.loads(done.out)
    assert summary["runs"] == 13
    assert summary["checksum"] == read_baseline(tmp_path / "baseline.json").checksum
    assert summary["bytes"] == (tmp_path / "baseline.json").stat().st_size


def test_baseline_of_nothing_is_refused(capacity, tmp_path):
    assert_one_line(capacity("baseline", "none"), "none: no such study folder")
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    assert_one_line(capacity("baseline", "empty"), "no complete run")


def test_exit_codes_of_the_outcomes(old, study, capacity):
    same = capacity("check", old)
    assert same.code == 0
    assert "Identical: every answer of every run is the same as in the baseline." in same.out
    fresh = study("fresh", draw=1)
    assert capacity("check", fresh, "--margin", "0.06").code == 0
    assert capacity("check", study("bad", draw=1, shift=-0.15)).code == 1
    assert capacity("check", fresh, "--margin", "0.0001").code == 3
    assert capacity("check", fresh, "--margin", "0.0001", "--inconclusive", "warn").code == 0


def test_a_check_changes_neither_study_nor_baseline(old, capacity, tmp_path):
    def state():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}

    before = state()
    capacity("check", old)
    assert state() == before


def test_json_is_one_object_with_the_outcome(old, study, capacity):
    done = capacity("check", study("bad", draw=1, shift=-0.15), "--json")
    assert (done.code, done.err) == (1, "")
    result = json.loads(done.out)
    assert (result["outcome"], result["exit_code"], result["margin"]) == ("worse", 1, 0.02)
    (curve,) = result["curves"]
    assert curve["change"]["estimate"] == pytest.approx(-0.15, abs=0.03)
    assert [s["trained_parameters"] for s in curve["sizes"]] == list(guarded.SIZES)
    assert {s["moved"] for s in curve["sizes"]} == {"down"}
    assert curve["design"]["smallest_drop"] > 0.02


def test_people_read_the_same(old, study, capacity):
    done = capacity("check", study("bad", draw=1, shift=-0.15, fingerprint=guarded.OTHER), "--details")
    text = " ".join(done.out.split())
    assert "Environment since the baseline: torch 2.12.0 → 2.13.0, sources." in text
    assert "the smallest drop called worse four times in five is" in text
    assert "* down" in text
    assert "half of the baseline's gain, takes" in text
    assert "Worse (margin 2 points): grpo worse, -1" in text


def test_markdown_and_junit_say_the_same(old, study, capacity, tmp_path):
    bad = study("bad", draw=1, shift=-0.15)
    assert capacity("check", bad, "--markdown", "check.md", "--junit", "check.xml").code == 1
    page = (tmp_path / "check.md").read_text()
    assert page.startswith("## capacity check: worse\n")
    assert "### grpo: worse" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3 + 1
    assert {line.count("|") for line in table} == {6}
    suite = ElementTree.fromstring((tmp_path / "check.xml").read_text())
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "worse"


def test_junit_of_what_is_inconclusive_follows_the_option(old, study, capacity, tmp_path):
    fresh = study("fresh", draw=1)
    for option, tag in (("fail", "failure"), ("warn", "skipped")):
        capacity("check", fresh, "--margin", "0.0001", "--inconclusive", option, "--junit", "check.xml")
        suite = ElementTree.fromstring((tmp_path / "check.xml").read_text())
        assert [e.tag for e in suite.find("testcase") if e.tag != "system-out"] == [tag]
    capacity("check", old, "--junit", "check.xml")
    suite = ElementTree.fromstring((tmp_path / "check.xml").read_text())
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "0")


def test_history_lowers_the_level_and_remembers(old, study, capacity, tmp_path):
    fresh = study("fresh", draw=1)

    def check(folder):
        return json.loads(capacity("check", folder, "--history", "h.jsonl", "--json").out)["history"]

    assert check(fresh) == {"check": 1, "level": 0.005, "repeated": False}
    assert check(fresh) == {"check": 2, "level": 0.005, "repeated": True}
    for number in range(3, 6):
        assert check(old)["check"] == number
    # Checks 2 to 5 spent nothing, and the sixth earns its share.
    assert check(study("other", draw=2)) == {"check": 6, "level": pytest.approx(0.025), "repeated": False}
    entries = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [e["verdict"] for e in entries][2:5] == ["identical"] * 3
    assert [e["spent"] for e in entries] == pytest.approx([0.005, 0, 0, 0, 0, 0.025])


def test_history_is_explained(old, capacity):
    text = " ".join(capacity("check", old, "--history", "h.jsonl", "--alarms-per-100", "1", "--details").out.split())
    assert "worse is claimed at level 0.01, so that on average at most 1 of 100 checks of an unchanged project" in text


def test_a_broken_history_is_refused_and_left_alone(old, capacity, tmp_path):
    (tmp_path / "h.jsonl").write_text("{\n")
    assert_one_line(capacity("check", old, "--history", "h.jsonl"), "line 1 is not a check")
    assert (tmp_path / "h.jsonl").read_text() == "{\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give either a study folder, or --run"),
        (("old", "--run", "x.toml"), "give either a study folder, or --run"),
        (("old", "--out", "x"), "--out, --trainer and --workers belong to --run"),
        (("old", "--trainer", "trl"), "--out, --trainer and --workers belong to --run"),
        (("--run", "x.toml", "--trainer", "torch"), "unknown trainer 'torch': did you mean trl?"),
        (("old", "--margin", "2"), "margin 2: a share of 1 is needed"),
        (("old", "--margin", "0"), "margin 0: a share of 1 is needed"),
        (("old", "--margin", "nan"), "margin nan: a share of 1 is needed"),
        (("old", "--alpha", "0.7"), "alpha 0.7: must lie between"),
        (("old", "--inconclusive", "pass"), "choose fail or warn"),
        (("old", "--alpha", "nan"), "alpha nan: must lie between"),
        (("old", "--alpha", "1e-17"), "alpha 1e-17: must lie between 1e-06 and 0.5"),
        (("old", "--history", "h", "--alarms-per-100", "0"), "must not lie below 0.0001"),
        (("old", "--history", "h", "--alarms-per-100", "6"), "nor above 100 × alpha (5)"),
        (("old", "--history", ""), "--history '.': not the name of a file"),
        (("old", "--markdown", ""), "--markdown '.': not the name of a file"),
        (("old", "--junit", "/"), "--junit '/': not the name of a file"),
        (("old", "--junit", "old"), "old: cannot be written: not a file"),
        (("old", "--markdown", "baseline.json"), "--markdown baseline.json: the same file as --baseline"),
        (("old", "--markdown", "a", "--junit", "./a"), "--junit a: the same file as --markdown"),
        (("old", "--junit", "/dev/null"), "/dev/null: cannot be written: not a file"),
        (("--run", "s.toml", "--markdown", "s.toml"), "--markdown s.toml: the same file as --run"),
        ((300 * "x",), "File name too long"),
        (("none",), "none: no such study folder"),
        (("old", "--baseline", "none.json"), "none.json: no such file: make it with `capacity baseline"),
        (("old", "--markdown", "no/where.md"), "no/where.md: cannot be written: there is no folder no"),
        (("old", "--margin", "much"), "margin"),
    ],
)
def test_wrong_options_end_with_two(old, capacity, options, words):
    assert_one_line(capacity("check", *options), words)


def cut(text):
    return text[: len(text) // 2]


def edited(text):
    return text.replace('"n_correct": 2', '"n_correct": 3', 1)


def of_another_version(text):
    return text.replace('"version": 1,', '"version": 4,', 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "cut off"),
        (edited, "was edited"),
        (of_another_version, "format version 4"),
        (lambda text: text.replace('"n_correct": 2', '"n_correct": NaN', 1), "not whole JSON"),
        (lambda text: len(text) * "[", "not whole JSON"),
    ],
)
def test_a_bad_baseline_ends_with_two(old, capacity, tmp_path, change, words):
    path = tmp_path / "baseline.json"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    assert_one_line(capacity("check", old), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": {4: 0.5, 13: 0.6}}, "the study has no grpo tinylora 100, which the baseline has"),
        ({"first_item": 5}, "answered other items than the baseline"),
        ({"learning_rate": 0.1}, "differ in training.learning_rate (0.01 → 0.1)"),
        ({"items": 300}, "differ in evaluation.items (400 → 300)"),
        ({"base": False}, "the study has no base T=1"),
    ],
)
def test_a_study_that_cannot_be_compared_ends_with_two(old, study, capacity, options, words):
    assert_one_line(capacity("check", study("new", **options)), words)


def test_a_corrupt_run_ends_with_two(old, capacity):
    victim = next(iter((old / "runs").iterdir())) / "outcomes.jsonl"
    victim.write_bytes(victim.read_bytes()[:-9])
    assert_one_line(capacity("check", old), "outcomes.jsonl is corrupt")


def test_a_baseline_under_an_impossible_name_ends_with_two(old, capacity):
    assert_one_line(capacity("baseline", old, "-o", 300 * "x"), "File name too long")


@pytest.mark.parametrize("options", [("none",), ("old", "--margin", "2"), ("old", "--baseline", "none.json")])
def test_a_check_that_cannot_be_made_leaves_files_alone(old, capacity, tmp_path, options):
    (tmp_path / "README.md").write_text("mine")
    assert capacity("check", *options, "--markdown", "README.md", "--junit", "README.md.xml").code == 2
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_reader_that_goes_away_changes_no_exit_code(old, study, tmp_path):
    for folder, code in ((old, 0), (study("new", shift=-0.15), 1)):
        command = (
            f"set -o pipefail; {Path(sys.executable).parent}/capacity check {folder} | true; echo ${{PIPESTATUS[0]}}"
        )
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"{code}\n", "")


def test_a_broken_library_is_not_worse(old, capacity, monkeypatch):
    monkeypatch.delitem(sys.modules, "capacity.library.check", raising=False)
    monkeypatch.setitem(sys.modules, "capacity_analysis.check.guard", None)
    assert_one_line(capacity("check", old), "a library cannot be imported: ")


@pytest.mark.parametrize(("option", "value"), [("--metric", "acc"), ("--column", "item=question")])
def test_options_of_results_of_other_programs_are_for_them_alone(old, capacity, option, value):
    assert_one_line(capacity("check", "old", option, value), f"{option} {value}: ")
