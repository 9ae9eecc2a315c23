"""Results of other programs as a points table: what is said, what is asked for, and what is printed as not known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_verdict_command import DATA, samples, table
from typer.testing import CliRunner

import capacity
from capacity.errors import DataError, SpecError
from capacity_analysis.data.cell_results import cell_results
from capacity_analysis.data.read import read_points
from capacity_analysis.statistics.estimate import accuracy_estimate
from capacity_cli.app import app

FACTS = {"": {"method": "sft", "trained_parameters": "13"}}


def test_results_of_the_peft_benchmark_are_a_curve(tmp_path: Path) -> None:
    found = capacity.import_results(DATA / "peft", out=tmp_path)
    assert found.runs == 4
    assert {"n_items", "answers", "model_parameters"} <= set(found.not_known)
    frame = read_points(str(found.points)).frame.sort_values("trained_parameters")
    assert frame["trained_parameters"].tolist() == [64, 3584, 9175040, 3212749824]
    assert frame["accuracy"].tolist() == pytest.approx([6 / 1319, 16 / 1319, 636 / 1319, 660 / 1319])
    assert frame["adapter"].tolist() == ["tinylora", "tinylora", "lora", "full"]
    assert set(frame["method"]) == {"sft"}
    assert set(frame["seed"]) == {0}


def test_means_of_lm_evaluation_harness_have_counts_and_answers_go_before_them(tmp_path: Path) -> None:
    (results,) = (DATA / "lm-eval-0").glob("results_*.json")
    found = capacity.import_results(f"a={results}", out=tmp_path / "means", facts=FACTS, metric="acc")
    frame = read_points(str(found.points)).frame
    assert frame[["n_correct", "n_items"]].to_numpy().tolist() == [[16, 24]]
    assert (frame["model"].tolist(), frame["task"].tolist()) == (["models/tiny0"], ["tiny_sums"])
    assert "answers" in found.not_known
    with pytest.raises(SpecError, match="has several metrics: choose one with --metric: acc, acc_norm"):
        capacity.import_results(results, out=tmp_path / "none", facts=FACTS)
    whole = capacity.import_results(DATA / "lm-eval-0", out=tmp_path / "answers", facts=FACTS, metric="acc")
    assert read_points(str(whole.points)).frame["answers"].notna().all()


def state(folder: Path, *entries: dict[str, Any]) -> Path:
    """A checkpoint as the trainers of transformers and TRL write it."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    log = [{"loss": 1.5, "reward": 0.9, "learning_rate": 1e-4, "step": 1}, *entries]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": log}))
    return folder


def test_the_last_evaluation_of_a_trainer_is_a_mean_without_counts(tmp_path: Path) -> None:
    evaluations = ({"eval_loss": 0.4, "eval_accuracy": share, "eval_runtime": 3.2, "step": 2} for share in (0.25, 0.5))
    folder = state(tmp_path / "checkpoint-2", *evaluations)
    for source in (folder, folder / "trainer_state.json"):
        found = capacity.import_results(source, out=tmp_path / f"of-{source.name}", facts=FACTS, metric="eval_accuracy")
        assert read_points(str(found.points)).frame["accuracy"].tolist() == [0.5]
        assert {"model", "n_items", "answers", "learning_rate", "seed"} <= set(found.not_known)
    with pytest.raises(SpecError, match="name the accuracy on test items with --metric: eval_accuracy"):
        read_points(str(folder))
    with pytest.raises(DataError, match="has means and no answers, so nothing can be paired"):
        capacity.verdict(folder / "trainer_state.json", DATA / "lm-eval-0", metric="acc")


def test_a_source_without_a_name_has_that_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = state(tmp_path / "checkpoint-2", {"eval_accuracy": 0.5, "step": 2})
    (folder / "inner").mkdir()

    def named(source: str, out: str) -> list[str]:
        found = capacity.import_results(
            source, out=tmp_path / out, facts={"checkpoint-2": FACTS[""]}, metric="eval_accuracy"
        )
        return list(read_points(str(found.points)).frame["study"])

    assert named(str(folder / "trainer_state.json"), "file") == ["checkpoint-2"]
    monkeypatch.chdir(folder)
    assert [named(source, f"out{place}") for place, source in enumerate((".", "inner/..", "trainer_state.json"))] == [
        ["checkpoint-2"]
    ] * 3
    logs = tmp_path / "logs"
    logs.mkdir()
    samples(logs / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    monkeypatch.chdir(logs)
    (contrast,) = capacity.verdict(".", f"b={logs}").found.contrasts
    assert (contrast.first, contrast.second) == ("logs", "b")


def test_rewards_and_losses_of_a_trainer_are_no_test_accuracy(tmp_path: Path) -> None:
    folder = state(tmp_path / "checkpoint", {"eval_loss": 0.4, "eval_samples_per_second": 0.9})
    with pytest.raises(DataError, match="no grade of test items"):
        capacity.import_results(folder, out=tmp_path / "out", facts=FACTS)
    percent = state(tmp_path / "percent", {"eval_accuracy": 50.0})
    with pytest.raises(SpecError, match=r"accuracy: 50 is not a share from 0 to 1 \(percent\?\)"):
        capacity.import_results(percent, out=tmp_path / "out", facts=FACTS, metric="eval_accuracy")


def test_answers_give_the_interval_of_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((3, 50)) < 0.6
    rows = [
        {"arm": "a", "item": f"q{i}", "seed": seed, "correct": int(right[seed, i])}
        for seed in range(3) for i in range(50)
    ]  # fmt: skip
    found = capacity.import_results(table(tmp_path / "all.csv", rows), out=tmp_path / "out", facts=FACTS)
    (cell,) = cell_results(read_points(str(found.points)))
    assert cell.seeds == (0, 1, 2)
    order = sorted(range(50), key=lambda i: f"q{i}")
    assert cell.accuracy == accuracy_estimate(right[:, order].astype(float))


def test_what_sources_do_not_say_is_asked_for(tmp_path: Path) -> None:
    path = samples(tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    with pytest.raises(
        SpecError, match="a: the source does not say its method and trained_parameters: --set a:method=VALUE --set"
    ):
        capacity.import_results(f"a={path}", out=tmp_path / "out")
    with pytest.raises(SpecError, match="its trained_parameters: --set a:trained_parameters=VALUE"):
        capacity.import_results(f"a={path}", out=tmp_path / "out", facts={"a": {"method": "sft"}})
    assert not (tmp_path / "out").exists()


def test_what_a_person_says_must_not_contradict_the_source(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="method is sft in the source, and grpo by --set"):
        capacity.import_results(DATA / "peft", out=tmp_path, facts={"": {"method": "grpo"}})
    with pytest.raises(SpecError, match="unknown field 'metod': did you mean method"):
        capacity.import_results(DATA / "peft", out=tmp_path, facts={"": {"metod": "sft"}})


def test_runs_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    path = samples(tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    with pytest.raises(SpecError, match="are the same run"):
        capacity.import_results(f"a={path}", f"b={path}", out=tmp_path / "out", facts=FACTS)


def broken(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((DATA / "peft" / "lora--llama-3.2-3B-rank32.json").read_text())
    whole["train_info"] |= changes
    return whole


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        (broken(status="failed"), "ended with status failed"),
        (broken(metrics=[]), "not a whole result"),
        ({"log_history": [], "global_step": 3}, "a trainer's state has losses"),
        ({"anything": 1}, "not a log of inspect_ai"),
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path: Path, whole: dict[str, Any], words: str) -> None:
    (tmp_path / "one.json").write_text(json.dumps(whole))
    with pytest.raises(DataError, match=words):
        capacity.import_results(tmp_path / "one.json", out=tmp_path / "out", facts=FACTS)


def test_the_command_writes_a_table_that_other_commands_read_and_never_over_one(tmp_path: Path) -> None:
    frames = []
    for arm, size, share in (("base", 0, 0.2), ("a", 4, 0.5), ("b", 13, 0.8)):
        rng = np.random.default_rng(size)
        frames.append(pd.DataFrame({"item": range(200), "arm": arm, "correct": (rng.random(200) < share).astype(int)}))
    pd.concat(frames).to_csv(tmp_path / "all.csv", index=False)
    facts = ["base:method=base", "base:trained_parameters=0", "a:method=grpo", "a:trained_parameters=4",
             "b:method=grpo", "b:trained_parameters=13", "seed=0", "model=m"]  # fmt: skip
    command = ["import", str(tmp_path / "all.csv"), "--out", str(tmp_path / "out")]
    command += [part for fact in facts for part in ("--set", fact)]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["runs"] == 3
    (curve,) = capacity.thresholds(tmp_path / "out" / "points.csv", gain=0.5, null=0).to_json()["curves"]
    assert curve["sizes"] == [4, 13]
    assert curve["accuracies"] == [frame["correct"].mean() for frame in frames[1:]]
    with pytest.raises(DataError, match="is there already"):
        capacity.import_results(tmp_path / "all.csv", out=tmp_path / "out")


def sweep_table(path: Path) -> Path:
    """Answers of the untrained base and of two sizes, whose rows say how they were trained."""
    rng = np.random.default_rng(0)
    rows = [
        {"item": f"q{i}", "seed": 0, "method": method, "trained_parameters": size, "correct": int(rng.random() < share)}
        for method, size, share in (("base", 0, 0.2), ("grpo", 4, 0.5), ("grpo", 13, 0.8)) for i in range(200)
    ]  # fmt: skip
    return table(path, rows)


def test_a_table_that_says_how_its_arms_were_trained_is_read_by_every_analysis(tmp_path: Path) -> None:
    direct = sweep_table(tmp_path / "all.csv")
    frame = read_points(str(direct)).frame
    assert frame[["method", "trained_parameters"]].to_numpy().tolist() == [["base", 0], ["grpo", 4], ["grpo", 13]]
    written = capacity.import_results(direct, out=tmp_path / "out").points
    for ask in (lambda path: capacity.thresholds(path, gain=0.5, null=0), capacity.bits):
        mine, theirs = (json.dumps(ask(path).to_json()).replace(str(path), "PATH") for path in (direct, written))
        assert mine == theirs
    (curve,) = capacity.thresholds(direct, gain=0.5, null=0).to_json()["curves"]
    assert curve["sizes"] == [4, 13]
    done = CliRunner().invoke(app, ["report", str(direct), "--null", "0", "-o", str(tmp_path / "r.html")])
    assert (done.exit_code, (tmp_path / "r.html").is_file()) == (0, True)


def test_a_folder_of_the_peft_benchmark_is_read_by_every_analysis(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "peft"
    folder.mkdir()
    for file in (DATA / "peft").glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    assert read_points(str(folder)).frame["trained_parameters"].tolist() == [3212749824, 9175040, 3584, 64]
    found = capacity.thresholds(folder, target=0.3, null=0)
    assert len(found.checklist) == 13  # whose lines are asked of a study where there is one
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in folder.iterdir())
    done = CliRunner().invoke(app, ["report", "peft", "--null", "0", "--target", "0.3"])
    assert (done.exit_code, done.output.strip().splitlines()[-1]) == (0, "Report: report.html")
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("command", ["threshold", "bits", "report"])
def test_what_a_source_does_not_say_is_one_line_with_the_options_that_say_it(tmp_path: Path, command: str) -> None:
    path = table(tmp_path / "some.csv", [{"item": i, "arm": "a b", "method": "sft", "correct": 1} for i in range(9)])
    done = CliRunner().invoke(app, [command, str(path)])
    assert isinstance(done.exception, SpecError)
    assert str(done.exception) == (
        "a b: the source does not say its trained_parameters: --set 'a b:trained_parameters=VALUE' "
        "(options of capacity import, which writes a points table)"
    )
    path = samples(tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    done = CliRunner().invoke(app, [command, str(path)])
    assert "does not say its method and trained_parameters: --set " in str(done.exception)


def test_an_arm_of_two_sizes_is_refused(tmp_path: Path) -> None:
    rows = [{"item": i, "arm": "a", "method": "sft", "trained_parameters": 4 + i, "correct": 1} for i in range(2)]
    with pytest.raises(DataError, match="row 2: arm a has method sft and trained_parameters 5, and method sft and"):
        read_points(str(table(tmp_path / "a.csv", rows)))
