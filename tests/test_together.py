"""Runs that train together are the runs that each would be alone."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SMALLEST, small_spec

from capacity.errors import TrainingError
from capacity.spec.adapters import Lora, LoraXs, TinyLora
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.loop import Alone, Trainee, train
from capacity.training.run import RunRecord, execute, execute_together
from capacity.training.trainers import train_by

ADAPTERS: dict[str, Any] = {
    "tinylora": TinyLora(groups=5, u=2, projection_seed=3),
    "tinylora-tied": TinyLora(groups=1, u=1, projection_seed=4),
    "lora-xs": LoraXs(rank=3),
    "lora": Lora(rank=2, init_seed=5),
    "some": TinyLora(groups=2, u=1, projection_seed=3, targets=("q_proj", "down_proj")),
}


def run(method: Any, adapter: str = "tinylora", seed: int = 0, rate: float = 0.01, **training: Any) -> RunSpec:
    sizes = {"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 4, **training}
    spec = small_spec(method, seed=seed, rate=rate, model=SMALLEST, **sizes)
    return spec.model_copy(update={"adapter": ADAPTERS[adapter]})


def together(*specs: RunSpec) -> list[Any]:
    return execute_together(specs, lambda *_: None, Bases("cpu"))


def assert_same(found: Any, alone: RunRecord) -> None:
    assert isinstance(found, RunRecord)
    assert [s.model_fields_set for s in found.steps] == [s.model_fields_set for s in alone.steps]
    for ours, theirs in zip(found.steps, alone.steps, strict=True):
        for name, value in theirs.model_dump().items():
            measured = isinstance(value, float)
            assert getattr(ours, name) == (pytest.approx(value, rel=1e-4, abs=1e-5) if measured else value), name
    assert found.outcomes == alone.outcomes
    assert found.result.flops == alone.result.flops
    square = alone.result.update_square_sum
    assert square
    assert found.result.update_square_sum == pytest.approx(square, rel=1e-4)


def test_runs_of_all_methods_and_updates_are_the_same_together_and_alone() -> None:
    specs = [
        run("grpo", seed=0),
        run("sft", "lora-xs", seed=0, rate=0.003),
        run("grpo", "lora", seed=1, rate=0.002, steps=2),
        run("random-reward", "tinylora-tied", seed=2),
        run("rft", "some", seed=1),
        run("sft+grpo", "lora-xs", seed=3, rate=0.003),
    ]
    for found, spec in zip(together(*specs), specs, strict=True):
        assert_same(found, execute(spec, "cpu"))


FIRST = run("grpo", seed=0, steps=2)
COMPANIONS = [
    run("sft", "lora", seed=4, rate=0.002, steps=1),
    run("grpo", "lora-xs", seed=7, rate=0.003, steps=2),
    run("rft", "some", seed=5, steps=1),
    run("random-reward", "tinylora-tied", seed=2, steps=3),
    run("grpo", "tinylora", seed=1, prompts_per_step=2, samples_per_prompt=3, steps=1),
]


@cache
def first_alone() -> RunRecord:
    return execute(FIRST, "cpu")


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(COMPANIONS), min_size=1, max_size=3, unique_by=id), st.integers(0, 3))
def test_companions_change_nothing(companions: list[RunSpec], place: int) -> None:
    specs = [*companions[:place], FIRST, *companions[place:]]
    assert_same(together(*specs)[specs.index(FIRST)], first_alone())


def test_a_run_that_fails_fails_alone() -> None:
    healthy, broken = run("sft", seed=0), run("sft", "lora", seed=1, rate=1e30)
    found, failure = together(healthy, broken)
    assert_same(found, execute(healthy, "cpu"))
    assert isinstance(failure, TrainingError)
    with pytest.raises(TrainingError) as alone:
        execute(broken, "cpu")
    assert str(failure) == str(alone.value)


def test_a_run_that_cannot_be_sampled_fails_alone() -> None:
    """They are sampled in one pass, and the numbers of the healthy run are drawn anew after it has failed."""
    healthy, broken = run("grpo", seed=0), run("grpo", "lora", seed=1, rate=1e30)
    found, failure = together(healthy, broken)
    assert_same(found, execute(healthy, "cpu"))
    assert isinstance(failure, TrainingError)
    assert "not finite" in str(failure)


def test_an_arm_that_cannot_begin_ends_its_own_run() -> None:
    def phases() -> Any:
        raise TrainingError("no room")
        yield

    trainee = Trainee(phases())
    assert (trainee.grows, str(trainee.error)) == (False, "no room")
    train([trainee], Alone())
    with pytest.raises(TrainingError, match="no room"):
        train_by("loop", phases())


def test_runs_of_the_base_at_several_temperatures_read_each_prompt_once_and_answer_the_same() -> None:
    base = small_spec("base", model=SMALLEST, items=24)
    specs = [
        base.model_copy(update={"evaluation": base.evaluation.model_copy(update={"temperature": t})})
        for t in (0.0, 0.5, 1.0)
    ]
    for found, spec in zip(together(*specs), specs, strict=True):
        alone = execute(spec, "cpu")
        assert found.outcomes == alone.outcomes
        assert found.result.n_correct == alone.result.n_correct


def test_a_pass_of_large_groups_is_the_same_to_the_last_bit() -> None:
    """Products of 64 rows and more do not depend on other rows, so updates on demonstrations are exact."""
    specs = [run("sft", "tinylora", seed=s, prompts_per_step=16, samples_per_prompt=8, steps=2) for s in (0, 1, 2)]
    for found, spec in zip(together(*specs), specs, strict=True):
        alone = execute(spec, "cpu")
        assert found.artifact == alone.artifact
        assert [s.loss for s in found.steps] == [s.loss for s in alone.steps]


def test_the_base_stays_as_it_is() -> None:
    bases = Bases("cpu")
    before = {n: p.clone() for n, p in bases.of(SMALLEST).model.named_parameters()}
    execute(small_spec("sft", "full", rate=0.01, model=SMALLEST), "cpu", bases=bases)
    execute_together([run("sft"), run("grpo", "lora")], lambda *_: None, bases)
    assert all(torch.equal(p, before[n]) for n, p in bases.of(SMALLEST).model.named_parameters())
