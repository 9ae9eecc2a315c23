"""`capacity baseline` and `capacity check` from options to files and exit codes."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import guarded
import pytest
import yaml

from capacity.errors import CapacityError, DataError, Interrupted, RunsFailedError, StudyLockedError
from capacity.runs.study import Study
from capacity_analysis.check.baseline import read_baseline
from capacity_analysis.check.snapshot import snapshot
from capacity_cli.app import main

ROOT = Path(__file__).parent.parent


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def capacity(monkeypatch, tmp_path):
    """Runs `capacity` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["capacity", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
        return Done(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study; options as in `guarded.make`."""

    def write(name, **options):
        return guarded.write(guarded.make(**{"seeds": range(4), **options}), tmp_path / name, monkeypatch)

    return write


@pytest.fixture
def old(study, capacity):
    """A baseline, and the study that it was made of."""
    folder = study("old")
    assert capacity("baseline", folder).code == 0
    return folder


def assert_one_line(done, words, code=2):
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("capacity: ")
    assert done.err.count("\n") == 1
    assert words in done.err


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


@pytest.fixture
def sweep(monkeypatch):
    """A sweep that makes what the test says, and how it was called."""
    calls: list[tuple[object, ...]] = []

    def install(make, planned=None):
        def make_fresh(path, out, *, workers, trainer, observe):
            calls.append((path, out, trainer, workers))
            return make(out)

        monkeypatch.setattr("capacity.library.check.make_fresh", make_fresh)
        monkeypatch.setattr("capacity.library.check.planned_specs", lambda _: planned)
        return calls

    return install


def test_run_makes_an_empty_study_first(old, study, capacity, sweep, tmp_path):
    calls = sweep(lambda out: Study(study(out, draw=1, shift=-0.15)))
    done = capacity("check", "--run", "studies/ci-abacus.toml", "--workers", "2")
    assert done.code == 1
    default = Path("capacity-studies") / "check-ci-abacus"
    assert calls == [(Path("studies/ci-abacus.toml"), default, "loop", 2)]
    assert (tmp_path / default / "runs").is_dir()
    assert capacity("check", "--run", "studies/ci-abacus.toml").code == 1
    assert calls[1][1] == Path("capacity-studies") / "check-ci-abacus-2"
    assert capacity("check", "--run", "s.toml", "--out", "mine", "--trainer", "trl").code == 1
    assert calls[2] == (Path("s.toml"), Path("mine"), "trl", None)


def test_run_looks_at_the_baseline_before_it_trains(capacity, sweep):
    calls = sweep(lambda _: pytest.fail("trained in vain"))
    assert_one_line(capacity("check", "--run", "s.toml"), "baseline.json: no such file")
    assert calls == []


def test_runs_that_failed_end_with_one(old, capacity, sweep):
    def fail(out):
        raise RunsFailedError("2 of 13 runs failed; the diagnosis of each: capacity runs x")

    sweep(fail)
    assert_one_line(capacity("check", "--run", "s.toml"), "2 of 13 runs failed", code=1)


@pytest.mark.parametrize(
    "error", [StudyLockedError("study x is in use"), CapacityError("trl is missing"), OSError(28, "No space left", "x")]
)
def test_what_says_nothing_of_the_curves_ends_with_two(old, capacity, sweep, error):
    def fail(out):
        raise error

    sweep(fail)
    done = capacity("check", "--run", "s.toml")
    assert_one_line(done, str(error) if isinstance(error, CapacityError) else "x: No space left")


def test_an_interrupted_check_does_not_say_that_it_continues(old, capacity, sweep):
    def interrupt(out):
        raise Interrupted("interrupted: 2 of 32 runs are kept; the same command continues")

    sweep(interrupt)
    done = capacity("check", "--run", "s.toml")
    assert_one_line(done, "a check starts anew each time; capacity-studies/check-s has the runs", code=130)


def test_a_baseline_under_an_impossible_name_ends_with_two(old, capacity):
    assert_one_line(capacity("baseline", old, "-o", 300 * "x"), "File name too long")


def test_a_fault_of_the_check_itself_is_not_worse(old, capacity, sweep):
    def fail(out):
        raise ZeroDivisionError

    sweep(fail)
    done = capacity("check", "--run", "s.toml")
    assert done.code == 2
    assert "the check itself failed" in done.err.splitlines()[-1]


def test_run_compares_the_plan_before_it_trains(old, capacity, sweep):
    made = guarded.make(seeds=range(4), learning_rate=0.1)
    calls = sweep(lambda _: pytest.fail("trained in vain"), [run.spec for run in made.made])
    done = capacity("check", "--run", "s.toml")
    assert_one_line(done, "protocols of baseline and study file differ in training.learning_rate (0.01 → 0.1)")
    calls = sweep(calls.append, [run.spec for run in guarded.make(seeds=range(3)).made])
    assert_one_line(capacity("check", "--run", "s.toml"), "grpo tinylora 4: the study has no seed 3")
    calls = sweep(calls.append, [run.spec for run in guarded.make(sizes={4: 0.5}).made])
    assert_one_line(
        capacity("check", "--run", "s.toml"),
        "the study file has no grpo tinylora 13, which the baseline has (it has grpo 4, base T=1)",
    )
    calls = sweep(calls.append, [run.spec for run in guarded.make(methods=("sft",)).made])
    assert_one_line(
        capacity("check", "--run", "s.toml"),
        "the study file has no grpo tinylora 4, which the baseline has (it has sft 4, sft 13, sft 100, base T=1)",
    )
    assert_one_line(capacity("check", "--run", "s.toml", "--margin", "2"), "margin 2")
    assert calls == []


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


def test_a_folder_that_leads_nowhere_does_not_hang(old, capacity, sweep, tmp_path):
    (tmp_path / "capacity-studies").symlink_to("/nonexistent/x")
    sweep(lambda _: pytest.fail("no place for it"))
    assert_one_line(capacity("check", "--run", "s.toml"), "capacity-studies: File exists")


def test_a_study_that_is_not_empty_ends_with_two(old, capacity, sweep):
    def refuse(out):
        raise DataError(f"{out}: has runs already")

    sweep(refuse)
    assert_one_line(capacity("check", "--run", "s.toml", "--out", "old"), "old: has runs already")


def run_action(tmp_path, **inputs):
    """The check of action/action.yml, run as GitHub runs it, and the names of the inputs that it uses."""
    action = yaml.safe_load((ROOT / "action" / "action.yml").read_text())
    given = {name: str(entry["default"]) for name, entry in action["inputs"].items()} | inputs
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "check")
    environment = {
        name: given[value.split("inputs.")[1].split(" ")[0]] if "inputs." in value else value
        for name, value in step["env"].items()
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    used = {value.split("inputs.")[1].split(" ")[0] for value in step["env"].values() if "inputs." in value}
    assert used | {"install"} == set(action["inputs"])
    return done


def installing(tmp_path, commands, **environment):
    """The commands that would install, as they reach programs that only write them down."""
    programs, log = tmp_path / "programs", tmp_path / "installed.txt"
    programs.mkdir()
    for name in ("python", "pip", "uv"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{log}"\n')
        (programs / name).chmod(0o755)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", **environment}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", "\n".join(commands)], env=given, check=True)
    return log.read_text().replace(f"{programs}/", "").splitlines()


def test_action_installs_the_build_of_torch_that_fits_the_machine(tmp_path):
    action = yaml.safe_load((ROOT / "action" / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if step.get("if") == "inputs.install != ''"]
    assert installing(tmp_path, [step["run"]], INSTALL="-c pins.txt .[train]") == [
        "python -m pip install --quiet uv",
        "python -m uv pip install --quiet --python python --torch-backend auto -c pins.txt .[train]",
    ]


def test_the_gitlab_snippet_installs_the_build_of_torch_that_fits_the_machine(tmp_path):
    _, gitlab, _ = yaml_snippets()
    assert installing(tmp_path, gitlab["capacity"]["script"][:-1]) == [
        "pip install --quiet uv",
        "uv pip install --quiet --python python --torch-backend auto .[train]",
    ]


@pytest.mark.parametrize(("shift", "code", "outcome"), [(0.0, 0, "identical"), (-0.15, 1, "worse")])
@pytest.mark.parametrize("history", ["", "history.jsonl"])
def test_action_puts_the_result_on_the_job_page(old, study, tmp_path, shift, code, outcome, history):
    done = run_action(tmp_path, study=str(study("new", shift=shift)), history=history)
    assert done.returncode == code, done.stderr
    heading = f"## capacity check: {outcome}\n"
    assert done.stdout.startswith(heading)
    assert (tmp_path / "summary.md").read_text().startswith(heading)
    junit, said = (tmp_path / "output").read_text().splitlines()
    assert said == f"outcome={outcome}"
    assert ElementTree.fromstring(Path(junit.removeprefix("junit=")).read_text()).tag == "testsuite"
    assert (tmp_path / "history.jsonl").exists() == bool(history)


def test_action_says_on_the_job_page_what_could_not_be_compared(old, tmp_path):
    done = run_action(tmp_path, study="none")
    assert done.returncode == 2
    line = "capacity: none: no such study folder"
    assert done.stderr == line + "\n"
    assert (tmp_path / "summary.md").read_text() == f"## capacity check: not compared\n\n    {line}\n"
    assert "outcome=" not in (tmp_path / "output").read_text()


@pytest.mark.parametrize(
    ("candidate", "code", "outcome"), [("lm-eval-0", 0, "identical"), ("lm-eval-1", 3, "inconclusive")]
)
def test_action_compares_results_of_another_program(tmp_path, candidate, code, outcome):
    shutil.copytree(ROOT / "tests" / "data" / "evaluations", tmp_path / "logs")
    done = run_action(tmp_path, study=f"logs/{candidate}", baseline="logs/lm-eval-0", metric="acc")
    assert done.returncode == code, done.stderr
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith(f"## capacity check: {outcome}\n")
    assert "tiny\\_sums" in page
    junit, said = (tmp_path / "output").read_text().splitlines()
    assert said == f"outcome={outcome}"
    assert ElementTree.fromstring(Path(junit.removeprefix("junit=")).read_text()).tag == "testsuite"


def test_action_stops_at_a_table_of_outcomes_that_is_worse(tmp_path):
    for name, right in (("before", 120), ("after", 60)):
        rows = "".join(f"q{i},{int(i < right)}\n" for i in range(200))
        (tmp_path / f"{name}.csv").write_text("item,correct\n" + rows)
    done = run_action(tmp_path, study="after.csv", baseline="before.csv")
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "output").read_text().splitlines()[1] == "outcome=worse"


def test_action_names_the_columns_of_a_table(tmp_path):
    (tmp_path / "answers.csv").write_text("question no,right\n" + "".join(f"q{i},{i % 2}\n" for i in range(20)))
    columns = "item=question no\ncorrect=right\n"
    done = run_action(tmp_path, study="answers.csv", baseline="answers.csv", columns=columns)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").read_text().splitlines()[1] == "outcome=identical"


def test_action_says_that_results_have_several_grades(tmp_path):
    shutil.copytree(ROOT / "tests" / "data" / "evaluations", tmp_path / "logs")
    done = run_action(tmp_path, study="logs/lm-eval-1", baseline="logs/lm-eval-0")
    assert done.returncode == 2
    assert "has several metrics: choose one with --metric: " in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("option", "value"), [("--metric", "acc"), ("--column", "item=question")])
def test_options_of_results_of_other_programs_are_for_them_alone(old, capacity, option, value):
    assert_one_line(capacity("check", "old", option, value), f"{option} {value}: ")


def yaml_snippets():
    """The YAML blocks of docs/ci.md: GitHub's, GitLab's, and GitHub's for results of other programs."""
    text = (ROOT / "docs" / "ci.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_the_github_snippet_uses_the_action_as_it_is():
    github, _, results = yaml_snippets()
    action = yaml.safe_load((ROOT / "action" / "action.yml").read_text())
    steps = [
        step
        for job in (github["jobs"]["capacity"], results["jobs"]["evaluation"])
        for step in job["steps"]
        if step["uses"] == "./action"
    ]
    assert [set(step["with"]) - set(action["inputs"]) for step in steps] == [set(), set()]


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (-0.15, 1)])
def test_the_gitlab_snippet_runs_as_it_is(old, study, capacity, sweep, tmp_path, shift, code):
    calls = sweep(lambda out: Study(study(out, shift=shift)))
    _, gitlab, _ = yaml_snippets()
    program, *arguments = shlex.split(gitlab["capacity"]["script"][-1])
    assert program == "capacity"
    assert capacity(*arguments).code == code
    assert [path for path, *_ in calls] == [Path("studies/ci-abacus.toml")]
    kept = gitlab["capacity"]["artifacts"]
    assert all((tmp_path / name).is_file() for name in [*kept["paths"], kept["reports"]["junit"]])
