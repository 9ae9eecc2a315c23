"""The action and the snippets for CI run the check and pass its result on."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from checked import ROOT

from capacity.runs.study import Study


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
