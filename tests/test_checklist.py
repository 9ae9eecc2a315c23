import itertools
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from fakes import add, spec, study_in

from capacity.errors import DataError
from capacity_analysis.checklist import QUESTIONS, checklist
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.thresholds.answers import ThresholdFacts


def table(methods=("sft", "grpo"), seeds=5, sizes=(1, 13), validation=True, **columns) -> Points:
    rows = [{"method": "base", "trained_parameters": 0, "protocol": "T1", "n_items": 100, "n_correct": 50}]
    for method, size, seed in itertools.product(methods, sizes, range(seeds)):
        rows.append(
            {
                "method": method, "trained_parameters": size, "protocol": "T1", "split": "test", "learning_rate": 0.01,
                "seed": seed, "n_items": 100, "n_correct": 60, **columns,
            }
        )  # fmt: skip
    if validation:
        for method, size, rate in itertools.product(methods, sizes, (0.001, 0.01, 0.1)):
            rows.append(
                {
                    "method": method, "trained_parameters": size, "protocol": "T1", "split": "validation",
                    "learning_rate": rate, "seed": 1000, "n_items": 100, "n_correct": 70 if rate == 0.01 else 40,
                }
            )  # fmt: skip
    return from_frame(pd.DataFrame(rows), "t")


def answers(points: Points, *args, **kwargs) -> dict[int, tuple[str, str]]:
    return {a.number: (a.answer, a.reason) for a in checklist(points, *args, **kwargs)}


def test_thirteen_lines_each_with_a_reason():
    found = checklist(table())
    assert [a.number for a in found] == list(range(1, 14))
    assert tuple(a.question for a in found) == QUESTIONS
    assert all(a.reason for a in found)


def test_a_bare_table_shows_little():
    bare = from_frame(pd.DataFrame({"method": ["sft"], "trained_parameters": [1], "accuracy": [0.5]}), "t")
    states = [a.answer for a in checklist(bare)]
    assert "yes" not in states
    assert states.count("no") == 4  # seeds, pairing, rft, controls


def test_tuning_and_selection():
    found = answers(table())
    assert found[2] == ("yes", "3 rates for each of 4 arms")
    assert found[3][0] == "yes"
    assert answers(table(validation=False))[2][0] == "not measured"
    frame = table().frame
    shared = frame.assign(seed=frame["seed"].mask(frame["split"] == "validation", 0))
    assert answers(from_frame(shared, "t"))[3] == ("no", "seeds 0 served selection and test")
    edge = frame[~((frame["split"] == "validation") & (frame["learning_rate"] == 0.1))]
    assert "edge" in answers(from_frame(edge, "t"))[2][1]
    unequal = frame[~((frame["split"] == "validation") & (frame["learning_rate"] == 0.1) & (frame["method"] == "sft"))]
    assert "not as many trials" in answers(from_frame(unequal, "t"))[2][1]
    untuned = frame[~((frame["split"] == "validation") & (frame["trained_parameters"] == 13))]
    assert answers(from_frame(untuned, "t"))[2] == ("no", "no trials for grpo 13, sft 13")


def test_seeds_and_controls():
    assert answers(table())[4][0] == "not measured"  # five seeds, but no folder that would show failures
    assert answers(table(seeds=3))[4] == ("no", "3 seeds in the smallest arm")
    assert answers(table())[7][0] == "no"
    assert answers(table(("sft", "grpo", "rft")))[7] == ("yes", "rft at every size of sft and grpo")
    frame = table(("sft", "grpo", "rft")).frame
    partly = frame[~((frame["method"] == "rft") & (frame["trained_parameters"] == 13))]
    assert answers(from_frame(partly, "t"))[7] == ("no", "rft is missing at 13 trained parameters")


@pytest.mark.parametrize(
    ("facts", "line", "state"),
    [
        (ThresholdFacts(target=0.9), 1, "yes"),
        (ThresholdFacts(censoring=(("sft", "right"), ("grpo", "none"))), 10, "no"),
        (ThresholdFacts(censoring=(("sft", "none"), ("grpo", "none"))), 10, "yes"),
        (ThresholdFacts(null_calibrated=True), 11, "yes"),
        (ThresholdFacts(fit_tested=True), 12, "not measured"),
        (ThresholdFacts(fit_tested=True, parallel_tested=True), 12, "yes"),
        (ThresholdFacts(ratio=(12.0, math.inf)), 13, "yes"),
        (ThresholdFacts(), 13, "not measured"),
    ],
)
def test_what_the_thresholds_know(facts, line, state):
    assert answers(table(), thresholds=facts)[line][0] == state


def test_ratio_is_held_against_ten():
    words = {
        (12.0, math.inf): "above 10×",
        (2.0, 8.0): "below 10×",
        (2.0, 30.0): "holds 10×",
    }
    for ends, word in words.items():
        assert word in answers(table(), thresholds=ThresholdFacts(ratio=ends))[13][1]


def test_runs_that_record_no_prompts_are_not_measured(tmp_path: Path):
    study = study_in(tmp_path)
    for seed in range(2):
        add(study, spec("sft", seed), [1, 1, 0, 0])
        add(study, spec("grpo", seed), [1, 1, 1, 0], **({"prompts": None, "sequences": None} if seed else {}))
    said = ("not measured", "not recorded: prompts and sequences of 1 of 4 runs")
    assert answers(read_points(str(study.folder)), study)[6] == said


def test_recorded_runs_that_are_uneven_are_not_matched(tmp_path: Path):
    study = study_in(tmp_path)
    add(study, spec("sft"), [1, 1, 0, 0])
    add(study, spec("grpo"), [1, 1, 1, 0], sequences=48)
    add(study, spec("rft"), [1, 1, 1, 0], prompts=None)
    said = ("no", "prompts or sequences differ between runs of abacus-0.9m")
    assert answers(read_points(str(study.folder)), study)[6] == said


def test_a_study_folder_shows_pairing_matching_and_recipes(tmp_path: Path):
    study = study_in(tmp_path)
    add(study, spec("base"), [1, 0, 1, 0])
    for seed in range(5):
        add(study, spec("sft", seed), [1, 1, 0, 0])
        add(study, spec("grpo", seed), [1, 1, 1, 0])
    found = answers(read_points(str(study.folder)), study)
    assert found[4] == ("yes", "at least 5 seeds; 0 failed runs are kept")
    assert found[5] == ("yes", "the same 4 items for every arm")
    assert found[6][0] == "yes"
    assert found[9][0] == "yes"


def test_a_study_of_this_program_can_have_every_control(tmp_path: Path):
    study = study_in(tmp_path)
    add(study, spec("base"), [1, 0])
    add(study, spec("grpo"), [1, 1])
    missing = "missing: base at several temperatures, random-reward"
    assert answers(read_points(str(study.folder)), study)[8] == ("no", missing)
    add(study, spec("random-reward"), [1, 0])
    one_temperature = ("no", "missing: base at several temperatures; there: random-reward")
    assert answers(read_points(str(study.folder)), study)[8] == one_temperature
    add(study, spec("base", temperature=0.5), [1, 0])
    assert answers(read_points(str(study.folder)), study)[8][0] == "yes"


def test_two_models_with_one_base_each_are_not_several_temperatures():
    frame = table(("sft", "grpo", "random-reward")).frame.drop(columns="cell").assign(model="m")
    other = frame.assign(model="n", protocol="T0")
    found = answers(from_frame(pd.concat([frame, other]), "t"))
    assert found[8] == ("no", "missing: base at several temperatures; there: random-reward")


def test_different_projections_are_no_pair(tmp_path: Path):
    study = study_in(tmp_path)
    one, other = spec("sft", 0), spec("grpo", 0)
    add(study, one, [1, 0])
    assert other.adapter.kind == "tinylora"
    add(study, other.model_copy(update={"adapter": other.adapter.model_copy(update={"projection_seed": 9})}), [1, 0])
    found = answers(read_points(str(study.folder)), study)
    assert found[9] == ("no", "adapter or dtype differ at tinylora 13 seed 0")


def tuning(method, rates, at_edge=False, failed=()):
    trials = [{"rate": r, "accuracy": None if r in failed else 0.5 + 0.1 * (r == 0.01)} for r in rates]
    return {
        "model": "m", "task": "t", "adapter": "tinylora", "trained_parameters": 13, "match": "prompts",
        "tokens_per_step": None, "method": method, "learning_rate": 0.01, "at_edge": at_edge, "trials": trials,
    }  # fmt: skip


def line_two(folder, arms, methods=("sft", "grpo")):
    study = study_in(folder)
    (study.folder / "tuning.json").write_text(json.dumps(arms))
    (study.folder / "study.json").write_text(json.dumps({"tuning": {"seeds": [1000]}}))
    points = table(methods, sizes=(13,), validation=False, model="m")
    return answers(points, study)[2]


def test_the_tuning_of_a_study_answers_line_two(tmp_path):
    rates = (0.001, 0.01, 0.1)
    both = [tuning("sft", rates), tuning("grpo", rates)]
    assert line_two(tmp_path, both) == ("yes", "3 rates for each of 2 arms")
    assert line_two(tmp_path, both, ("sft", "grpo", "random-reward", "sft+grpo"))[0] == "yes"
    assert line_two(tmp_path, both, ("sft", "rft")) == ("no", "no trials for m rft 13")
    failed = [tuning("sft", rates, failed=(0.1,)), tuning("grpo", rates)]
    assert line_two(tmp_path, failed)[0] == "yes"  # a rate at which runs fail was tried as well
    assert "not as many" in line_two(tmp_path, [tuning("sft", rates[:2]), tuning("grpo", rates)])[1]
    assert "edge" in line_two(tmp_path, [tuning("sft", rates, at_edge=True), tuning("grpo", rates)])[1]
    with pytest.raises(DataError, match=r"tuning\.json: not as"):
        line_two(tmp_path, [{"learning_rate": 0.1}])
