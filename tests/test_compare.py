"""`capacity compare` from options to result, with a protocol small enough for a test."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from in_process import Done, capacity
from small import PROTOCOL

from capacity.plan import protocols
from capacity.runs import fingerprint
from capacity_reports.report import build_report
from capacity_reports.views import Options

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from small import PROTOCOL
from capacity.plan import protocols
from capacity_cli.__main__ import main

if __name__ == "__main__":
    protocols.PROTOCOLS["abacus"] = PROTOCOL
    main()
"""
RATES = ("--learning-rates", "0.001", "--workers", "1")  # a second worker would load everything once more


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "small_capacity.py"
    path.write_text(SCRIPT)
    return path


def interruptible() -> None:
    """A test run that was started in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(*arguments: str) -> Done:
    """What the command does under the protocol of the script, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocols.PROTOCOLS, "abacus", PROTOCOL)
        return capacity(Path(), *arguments)


def written(study: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (study / "runs").iterdir()}


@pytest.fixture(scope="module")
def finished(script: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A comparison that was interrupted by Ctrl-C in the middle and then continued."""
    study = tmp_path_factory.mktemp("studies") / "study"
    words = ("compare", "--seeds", "2", "--out", str(study), "--json", *RATES)
    first = subprocess.Popen(
        [sys.executable, str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509
    )
    assert first.stderr is not None
    line = first.stderr.readline()
    assert line.startswith("[1/11] ")
    first.send_signal(signal.SIGINT)
    out, err = first.communicate()
    assert (first.returncode, out) == (130, ""), f"{line}{err}"
    last = [text for text in err.splitlines() if not text.startswith("[")]
    assert len(last) == 1, err
    assert last[0].startswith("capacity: interrupted: ")
    assert "the same command continues" in last[0]
    kept = written(study)
    assert 1 <= len(kept) < 11
    listed = run("runs", str(study)).out
    assert f"{len(kept)} complete, 0 stale, {11 - len(kept)} missing, 0 failed" in listed
    second = run(*words)
    assert second.code == 0, second.err
    assert {name: written(study)[name] for name in kept} == kept
    return study, json.loads(second.out)


def test_interrupted_comparison_continues_and_gives_the_whole_result(finished: tuple[Path, dict[str, Any]]) -> None:
    study, result = finished
    assert len(written(study)) == 11
    assert result["failed"] == 0
    assert [r["method"] for r in result["results"]] == ["sft", "rft", "grpo"]
    for row in result["results"]:
        assert (row["trained_parameters"], row["update_bytes"], row["seeds"], row["n_items"]) == (84, 294, 2, 8)
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["total_bytes"] == row["update_bytes"] + row["header_bytes"]
        assert row["wall_seconds"] > 0
        assert (row["prompts"] <= 6, row["sequences"]) == (True, 4 * row["prompts"])
        assert row["trained_tokens"] > 0
        assert row["flops"] > 0
        assert row["preparation_flops"] > 0  # the gradient of grpo has chosen the projection of each method
        over = row["gain_over_best_temperature"]
        assert over["low"] <= over["estimate"] <= over["high"]
    assert [r["sampled_tokens"] > 0 for r in result["results"]] == [False, True, True]
    assert [(d["first"], d["second"]) for d in result["differences"]] == [
        ("grpo", "sft"), ("grpo", "rft"), ("rft", "sft"),
    ]  # fmt: skip
    assert result["best_temperature"] in (0.0, 1.0)
    assert result["task"] == "abacus?demonstrations=worked&style_bits=4&style_shift=4"
    assert set(result["base_by_temperature"]) == {"0", "1"}
    assert result["verdict"].startswith("With 84 trained parameters: ")
    page = study / "report.html"
    assert (result.pop("report"), result.pop("report_error")) == (str(page), None)
    claims = result["verdict"].split(": ", 1)[1].rpartition(" (")[0].split("; ")
    assert len(claims) == 6  # three pairs, three gains
    assert all(claim in " ".join(page.read_text().split()) for claim in claims)
    assert not (study / "comparison.json").exists()


def test_a_finished_comparison_makes_nothing_again(finished: tuple[Path, dict[str, Any]]) -> None:
    study, result = finished
    before = written(study)
    again = run("compare", "--seeds", "2", "--out", str(study), "--no-report", "--details", *RATES)
    assert again.code == 0
    assert "eport" not in again.out
    assert written(study) == before
    assert result["verdict"] in " ".join(again.out.split())
    printed = [line.split() for line in again.out.splitlines()]
    page = build_report([study], options=Options(null=0, replicates=10))
    for table in (page.table("comparison"), page.table("comparison-differences")):
        assert table.title.split() in printed
        assert [row for row in table.texts() if " ".join(row).split() not in printed] == []


def test_runs_of_another_environment_are_refused_unless_allowed(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = finished
    monkeypatch.setattr(fingerprint, "LIBRARIES", (*fingerprint.LIBRARIES, "pip"))
    options = ("compare", "--seeds", "2", "--out", str(study), *RATES, "--no-report")
    assert "11 runs are stale, made in another environment (pip none → " in run(*options).refused(1)
    assert run(*options, "--allow-mixed").code == 0


def test_a_corrupt_run_is_named_and_nothing_else_is_touched(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    study = tmp_path / "copy"
    shutil.copytree(finished[0], study)
    victim = next(p for p in sorted((study / "runs").iterdir()) if (p / "metrics.jsonl").stat().st_size)
    (victim / "metrics.jsonl").write_bytes((victim / "metrics.jsonl").read_bytes()[:-20])
    line = run("compare", "--seeds", "2", "--out", str(study), *RATES).refused(1)
    assert str(victim) in line
    assert "metrics.jsonl is corrupt" in line
    assert len(written(study)) == 11


def test_failed_runs_are_counted_in_the_verdict_and_end_in_exit_code_1(tmp_path: Path) -> None:
    study = tmp_path / "study"
    done = run(
        "compare", "--methods", "sft,grpo", "--seeds", "1", "--adapter", "full", "--out", str(study), "--json",
        "--no-report", "--learning-rates", "sft=1e30,grpo=1e-5", "--workers", "1",
    )  # fmt: skip
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("capacity: 1 of 6 runs failed; the diagnosis of each: capacity runs")
    result = json.loads(done.out)
    assert result["incomplete"] == {"sft": 1}
    assert "1 sft run gave no result and is left out" in result["verdict"]
    assert result["verdict"].startswith("One seed: no claim about methods. ")
    assert "failed: sft full seed 0: the loss is nan" in run("runs", str(study)).out
