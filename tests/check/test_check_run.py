"""`capacity check --run` makes the study first, and says what it could not make."""

from pathlib import Path

import guarded
import pytest
from checked import assert_one_line

from capacity.errors import CapacityError, DataError, Interrupted, RunsFailedError, StudyLockedError
from capacity.runs.study import Study


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


def test_a_folder_that_leads_nowhere_does_not_hang(old, capacity, sweep, tmp_path):
    (tmp_path / "capacity-studies").symlink_to("/nonexistent/x")
    sweep(lambda _: pytest.fail("no place for it"))
    assert_one_line(capacity("check", "--run", "s.toml"), "capacity-studies: File exists")


def test_a_study_that_is_not_empty_ends_with_two(old, capacity, sweep):
    def refuse(out):
        raise DataError(f"{out}: has runs already")

    sweep(refuse)
    assert_one_line(capacity("check", "--run", "s.toml", "--out", "old"), "old: has runs already")
