"""The loop trains on what has a gradient alone, and measures the base beside it: nothing of that moves an update."""

import copy
from typing import Any

import pytest
import torch
from given import assert_near
from torch import Tensor
from untrained import TOKENIZER, HopelessTask, LuckyTask, adapted_model, arm_of, laid_out, spec_of

from capacity.spec.run import RunSpec
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.batch import Batch, Cost, Recorder
from capacity.training.batches import prompt_schedule
from capacity.training.grpo import GrpoArm
from capacity.training.loop import Alone, Trainee, train
from capacity.training.phases import phases

METHODS = ["grpo", "random-reward"]


class HalfTask(LuckyTask):
    """Nothing passes for every other item, so its groups are dead."""

    def grade(self, item: Item, completion: str) -> bool:
        return int(item.id.split("-")[-1]) % 2 == 0 and super().grade(item, completion)


def measuring(spec: RunSpec, base_every: int) -> RunSpec:
    assert spec.grpo is not None
    return spec.model_copy(update={"grpo": spec.grpo.model_copy(update={"base_every": base_every})})


def trained(spec: RunSpec, task: AbacusTask) -> tuple[Trainee, Recorder]:
    """A run of the loop, from an update far from zero, to its end."""
    recorder = Recorder([], Cost())
    trainee = Trainee(phases(adapted_model(spec, 0.1), TOKENIZER, task, spec, recorder))
    train([trainee], Alone())
    return trainee, recorder


def first_batch(arm: Arm, task: AbacusTask) -> Batch:
    return arm.batch(laid_out(arm, prompt_schedule(task, arm.spec.seed, 1, arm.prompts_per_step)))


def gradient(arm: Arm, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    loss = arm.loss(batch)
    found = torch.autograd.grad(loss, list(arm.adapted.trained.values()))
    return float(loss.detach()), dict(zip(arm.adapted.trained, found, strict=True))


@pytest.mark.parametrize("budget", ["100", "full"])
@pytest.mark.parametrize("at_once", [None, 4, 5])
@pytest.mark.parametrize("method", METHODS)
def test_leaving_out_groups_of_equal_rewards_keeps_the_gradient(
    method: Any, at_once: int | None, budget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = measuring(spec_of(method, budget=budget, prompts_per_step=8), 99)
    task = HalfTask()

    def stepped() -> tuple[Any, float, dict[str, Tensor]]:
        arm = arm_of(spec, task, scale=1e-3 if budget == "full" else 0.1)
        monkeypatch.setattr(type(arm), "measures_base", False)
        if at_once is not None:
            arm.at_once = lambda *_, **__: at_once
        return arm, *gradient(arm, first_batch(arm, task))

    arm, loss, skipped = stepped()
    (row,) = arm.steps
    assert 2 < row.dead_groups < 8
    assert row.passed_tokens < row.trained_tokens
    monkeypatch.setattr(GrpoArm, "with_gradient", lambda _, batch: batch)
    whole_arm, whole_loss, whole = stepped()
    (whole_row,) = whole_arm.steps
    assert whole_row.passed_tokens == whole_row.trained_tokens
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    assert_near(skipped, whole, relative=1e-6)
    assert arm.cost == whole_arm.cost
    for name, value in whole_row.model_dump().items():
        if name not in ("passed_tokens", "kl_to_sampler_bits", "loss"):
            assert getattr(row, name) == value, name


@pytest.mark.parametrize("at_once", [None, 5])
def test_the_base_is_measured_on_all_sequences_with_or_without_a_gradient(
    at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, task = spec_of("grpo", prompts_per_step=5), HalfTask()

    def stepped() -> tuple[Any, dict[str, Tensor]]:
        arm = arm_of(spec, task, scale=0.1)
        if at_once is not None:
            arm.at_once = lambda *_, **__: at_once
        _, found = gradient(arm, first_batch(arm, task))
        return arm.steps[0], found

    row, found = stepped()
    assert 0 < row.passed_tokens < row.trained_tokens
    monkeypatch.setattr(GrpoArm, "with_gradient", lambda _, batch: batch)
    whole, expected = stepped()
    assert_near(found, expected, relative=1e-6)
    assert row.model_fields_set == whole.model_fields_set
    assert row.kl_to_base_bits == pytest.approx(whole.kl_to_base_bits, rel=1e-5)
    assert row.base_code_length_bits == pytest.approx(whole.base_code_length_bits, rel=1e-6)


def test_groups_without_a_failure_are_dead_as_those_without_a_success() -> None:
    class Easy(AbacusTask):
        def grade(self, item: Item, completion: str) -> bool:  # noqa: ARG002
            return True

    for task, reward in ((Easy(), 1.0), (HopelessTask(), 0.0)):
        arm = arm_of(measuring(spec_of("grpo", steps=9), 99), task, scale=0.1)
        for _ in range(2):
            loss, found = gradient(arm, first_batch(arm, task))
            assert loss == pytest.approx(0.0, abs=1e-7)
            assert not any(g.any() for g in found.values())
        measured, skipped = arm.steps
        assert (measured.reward, skipped.reward) == (reward, reward)
        assert measured.passed_tokens == skipped.passed_tokens == 0
        assert measured.kl_to_base_bits is not None
        assert skipped.kl_to_base_bits is skipped.base_code_length_bits is None
        assert skipped.entropy_bits > 0
        assert skipped.code_length_bits > 0


class TurningTask(LuckyTask):
    """Lucky in the first two steps; afterwards nothing passes."""

    def __init__(self) -> None:
        super().__init__()
        self.graded = 0

    def grade(self, item: Item, completion: str) -> bool:
        self.graded += 1
        return self.graded <= 2 * 16 and super().grade(item, completion)


@pytest.mark.parametrize("budget", ["100", "full"])
def test_a_step_of_dead_groups_is_a_step_of_adam_with_a_zero_gradient(budget: str) -> None:
    spec = measuring(spec_of("grpo", budget=budget, steps=4, rate=1e-3), 99)
    adapted = adapted_model(spec, 1e-3)
    trainee = Trainee(phases(adapted, TOKENIZER, TurningTask(), spec, Recorder([], Cost())))

    def step() -> None:
        (batch,) = Alone().batches([trainee])
        torch.autograd.backward(Alone().losses([trainee], [batch]))
        trainee.update()

    step()
    step()
    twins = {name: torch.nn.Parameter(p.detach().clone()) for name, p in adapted.trained.items()}
    adam = torch.optim.AdamW(twins.values(), weight_decay=0.0)
    adam.load_state_dict(copy.deepcopy(trainee.adam.state_dict()))
    assert any(state["exp_avg"].any() for state in adam.state.values())
    for twin in twins.values():
        twin.grad = torch.zeros_like(twin)
    adam.step()
    step()
    row = trainee.arm.steps[-1]
    assert (row.dead_groups, row.passed_tokens, row.loss) == (4, 0, 0.0)
    for name, p in adapted.trained.items():
        assert torch.equal(p, twins[name]), name
        ours, theirs = trainee.adam.state[p], adam.state[twins[name]]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("method", "budget"), [("grpo", "100"), ("random-reward", "100"), ("grpo", "full")])
def test_how_often_the_base_is_measured_moves_no_bit_of_the_update(method: Any, budget: str) -> None:
    spec = spec_of(method, budget=budget, steps=4, prompts_per_step=5, samples_per_prompt=3, rate=1e-3)
    found = {}
    for every in (1, 3, 99):
        trainee, recorder = trained(measuring(spec, every), HalfTask())
        found[every] = trainee.arm.adapted.vector()
        measured = [step.step for step in recorder.steps if step.kl_to_base_bits is not None]
        assert measured == [step.step for step in recorder.steps if step.base_code_length_bits is not None]
        assert measured == sorted({*range(0, 4, every), 3})
        assert any(step.dead_groups for step in recorder.steps)
    for every, vector in found.items():
        assert torch.equal(vector, found[1]), every
