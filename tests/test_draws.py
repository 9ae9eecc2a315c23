"""What answers of an evaluation are drawn from: the seed of the run, or one draw that all runs share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sizes import within

from capacity.plan.grid import result_specs
from capacity.plan.protocols import PROTOCOLS
from capacity.plan.specs import base_specs, compare_specs
from capacity.plan.study_file import parse_study, read_study_file
from capacity.plan.together import jobs
from capacity.runs.points import protocol_name
from capacity.sampling.evaluate import draw_seed, evaluate, evaluate_at, evaluation_uniforms
from capacity.spec.parts import EvaluationSpec, TaskSpec
from capacity.spec.run import load_spec
from capacity.tasks.catalog import open_task
from capacity_analysis.check.baseline import read_baseline
from capacity_analysis.check.matching import check_plan

ROOT = Path(__file__).parents[1]
MODEL, TASK = "abacus-0.2m", TaskSpec(name="abacus", demonstrations="worked")
OWN = EvaluationSpec(split="test", items=6, max_new_tokens=8, draws="seed")
COMMON = OWN.model_copy(update={"draws": "common"})


def test_seeds_draw_their_own_uniforms_or_share_them() -> None:
    first, again, second = (evaluation_uniforms(OWN, 6, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not (first == second).any()
    assert torch.equal(evaluation_uniforms(COMMON, 6, 3), evaluation_uniforms(COMMON, 6, 4))
    assert [draw_seed(OWN.model_copy(update={"seed": 10}), seed) for seed in (0, 3)] == [10, 13]
    correlation = np.corrcoef(np.stack([evaluation_uniforms(OWN, 500, s).flatten().numpy() for s in range(8)]))
    assert np.abs(correlation - np.eye(8)).max() < 4 / np.sqrt(4000)
    with pytest.raises(ValueError, match="none is given"):
        draw_seed(OWN, None)


def test_common_draws_are_those_of_runs_made_before_the_field() -> None:
    assert "draws" not in COMMON.model_dump(mode="json")
    assert EvaluationSpec.model_validate(COMMON.model_dump(mode="json")) == COMMON
    assert EvaluationSpec.model_validate(OWN.model_dump(mode="json")) == OWN
    expected = torch.rand(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(evaluation_uniforms(COMMON, 6, 5), expected)
    assert (protocol_name(COMMON), protocol_name(OWN)) == ("T1-k1-n8-s0", "T1-k1-n8-s0-by-seed")


def test_greedy_answers_are_not_drawn() -> None:
    with pytest.raises(ValidationError, match="at temperature 0 nothing is drawn"):
        EvaluationSpec(split="test", items=6, max_new_tokens=8, temperature=0.0, draws="seed")
    greedy = PROTOCOLS["gsm8k"].evaluation(open_task(TaskSpec(name="gsm8k", demonstrations="none")))
    assert (greedy.temperature, greedy.draws) == (0.0, "common")


def test_every_seed_has_a_base_of_its_own_draws() -> None:
    specs = compare_specs(MODEL, TASK, ("sft",), within(MODEL, 13), 3, "bf16", {"sft": 0.1})
    base = [spec for spec in specs if spec.method == "base" and spec.evaluation.split == "test"]
    paired = [spec.seed for spec in base if spec.evaluation.temperature == 1]
    assert paired == [0, 1, 2]
    assert [spec.seed for spec in base if spec.evaluation.temperature != 1] == [0, 0, 0, 0]
    assert {spec.evaluation for spec in specs if spec.method == "sft"} == {base[-1].evaluation}
    assert all(load_spec(spec.model_dump(mode="json"), "spec") == spec for spec in specs)
    shared = compare_specs(MODEL, TASK, ("sft",), within(MODEL, 13), 3, "bf16", {"sft": 0.1}, draws="common")
    assert sum(spec.method == "base" for spec in shared) == sum(spec.method == "base" for spec in specs) - 2
    assert [len(job) for job in jobs(base, None, None)] == [len(base)]


def test_a_study_file_chooses_and_has_bases_for_the_seeds_of_all_its_grids() -> None:
    grids: list[dict[str, Any]] = [
        {"models": [MODEL], "methods": ["sft"], "sizes": [{"budget": 13}], "rates": 0.1, "seeds": 2},
        {"models": [MODEL], "methods": ["sft"], "sizes": [{"adapter": "full"}], "rates": 0.1, "seeds": [7],
         "base": False},
    ]  # fmt: skip
    found = result_specs(parse_study({"name": "s", "grids": grids}, "s"), {})
    own = {s.seed for s in found if s.method == "base" and s.evaluation == found[0].evaluation}
    assert own == {0, 1, 7}
    grids[0]["protocol"] = {"draws": "common"}
    found = result_specs(parse_study({"name": "s", "grids": grids}, "s"), {})
    assert {s.seed for s in found if s.method == "base"} == {0}


def test_the_base_of_other_splits_and_temperatures_has_one_seed() -> None:
    protocol = replace(PROTOCOLS["abacus"], temperatures=(0.0,))
    specs = base_specs(MODEL, TASK, protocol, seeds=(1, 2), validation=True)
    found = [(s.evaluation.split, s.evaluation.temperature, s.seed) for s in specs]
    assert found == [
        ("test", 0.0, 0), ("test", 1.0, 0),
        ("validation", 0.0, 0), ("validation", 1.0, 0), ("validation", 1.0, 1), ("validation", 1.0, 2),
    ]  # fmt: skip


def test_the_guard_keeps_the_draws_of_its_baseline() -> None:
    check_plan(
        result_specs(read_study_file(ROOT / "studies/ci-abacus.toml"), {}), read_baseline(ROOT / "baseline.json")
    )


def test_the_base_answers_together_as_each_of_its_runs_would_alone(smallest: Any, tokenizer: Any) -> None:
    task = open_task(TASK.unseen())
    protocol = OWN.model_copy(update={"items": 40, "max_new_tokens": 26})
    cold = EvaluationSpec(split="test", items=40, max_new_tokens=26, temperature=0.0)
    asked = [(protocol, 0), (cold, 0), (protocol, 1)]
    together = evaluate_at(smallest, tokenizer, task, asked)
    for found, (spec, seed) in zip(together, asked, strict=True):
        assert found == evaluate(smallest, tokenizer, task, spec, run_seed=seed)
    assert together[0].outcomes != together[2].outcomes
