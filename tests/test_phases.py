"""The arms of a run: which prompts they see, and `sft+grpo` as two halves of one training."""

from typing import Any

import pytest
import torch
from small import TASK as TASK_SPEC
from untrained import TOKENIZER, LuckyTask, adapted_model, spec_of

from capacity.errors import DataError
from capacity.spec.methods import TRAINED, Method
from capacity.spec.run import RunSpec
from capacity.tasks.abacus import AbacusTask
from capacity.training.batch import Cost, Recorder
from capacity.training.batches import prompt_schedule
from capacity.training.grpo import GrpoArm
from capacity.training.phases import phases
from capacity.training.sft import SftArm
from capacity.training.trainers import train_by

TASK = LuckyTask()
ONE_PHASE: tuple[Method, ...] = tuple(m for m in TRAINED if m != "sft+grpo")


def planned(spec: RunSpec, recorder: Recorder | None = None) -> list[Any]:
    return list(phases(adapted_model(spec), TOKENIZER, TASK, spec, recorder or Recorder([], Cost())))


def test_all_methods_see_the_same_prompts_in_the_same_order() -> None:
    expected = prompt_schedule(TASK, 3, 5, 4)
    for method in ONE_PHASE:
        ((arm, schedule),) = planned(spec_of(method, seed=3, steps=5))
        assert schedule == expected
        assert (arm.phase, arm.prompts_per_step, arm.sequences_per_prompt) == (None, 4, 4)
    assert [i for _, part in planned(spec_of("sft+grpo", seed=3, steps=5)) for i in part] == expected


def test_prompts_depend_on_the_seed_and_continue_when_there_are_more_steps() -> None:
    first, longer = prompt_schedule(TASK, 0, 10, 12), prompt_schedule(TASK, 0, 30, 12)
    assert longer[:120] == first
    assert len({i.id for i in longer}) == 360
    assert prompt_schedule(TASK, 1, 10, 12) != first
    assert prompt_schedule(TASK, 0, 20, 6) == first


class TenTask(AbacusTask):
    """A train split of ten items."""

    def items(self, split: Any, count: int | None = None) -> Any:
        return super().items(split, 10 if count is None and split == "train" else count)


def test_prompts_come_again_only_when_all_were_seen() -> None:
    schedule = [i.id for i in prompt_schedule(TenTask(), 0, 6, 5)]
    passes = [schedule[i : i + 10] for i in (0, 10, 20)]
    assert [len(set(p)) for p in passes] == [10, 10, 10]
    assert passes[0] != passes[1]


def test_split_smaller_than_a_step_is_refused() -> None:
    assert len(prompt_schedule(TenTask(), 0, 2, 10)) == 20
    with pytest.raises(DataError, match=r"^task abacus: its train split is too small: 10 items, a step needs 11$"):
        prompt_schedule(TenTask(), 0, 2, 11)


@pytest.mark.parametrize(("steps", "halves"), [(2, (1, 1)), (5, (2, 3)), (80, (40, 40))])
def test_each_half_has_half_the_steps_its_own_rate_and_half_the_warm_up(steps: int, halves: tuple[int, int]) -> None:
    spec = spec_of("sft+grpo", rates={"sft": 0.003, "grpo": 0.02}, steps=steps, warmup_steps=5)
    (first, _), (second, _) = planned(spec)
    assert (type(first), type(second)) == (SftArm, GrpoArm)
    assert (first.phase, second.phase) == ("sft", "grpo")
    assert (first.training.steps, second.training.steps) == halves
    assert (first.training.learning_rate, second.training.learning_rate) == (0.003, 0.02)
    assert (first.training.warmup_steps, second.training.warmup_steps) == (2, 2)


def test_with_matching_sequences_the_second_half_goes_on_after_all_prompts_of_the_first() -> None:
    (first, before), (second, after) = planned(spec_of("sft+grpo", steps=5, match="sequences"))
    assert (len(before), len(after)) == (2 * 16, 3 * 4)
    assert (first.sequences_per_prompt, second.sequences_per_prompt) == (1, 4)
    assert [*before, *after] == prompt_schedule(TASK, 0, 11, 4)


def test_halves_train_one_update_at_their_own_rates() -> None:
    """Adam's first step moves every entry by the learning rate, so one step a half shows both."""
    spec = spec_of("sft+grpo", rates={"sft": 0.003, "grpo": 0.02}, steps=2, max_new_tokens=26)
    adapted, recorder, positions = adapted_model(spec), Recorder([], Cost()), []
    for arm, schedule in phases(adapted, TOKENIZER, TASK, spec, recorder):
        train_by("loop", [(arm, schedule)])
        arm.diagnose()
        positions.append(adapted.vector().clone())
    after_sft, after_both = positions
    assert adapted.trained_parameters == 84
    torch.testing.assert_close(after_sft.abs(), torch.full((84,), 0.003), rtol=2e-2, atol=0)
    torch.testing.assert_close((after_both - after_sft).abs(), torch.full((84,), 0.02), rtol=2e-2, atol=0)
    assert [(row.step, row.phase) for row in recorder.steps] == [(0, "sft"), (1, "grpo")]
    assert recorder.steps[0].kl_to_base_bits == 0 < recorder.steps[1].kl_to_base_bits
    assert recorder.steps[0].reward is None
    assert recorder.steps[1].reward is not None
    assert (recorder.cost.prompts, recorder.cost.sequences, recorder.cost.sampled_sequences) == (8, 32, 16)


def test_runs_of_one_phase_do_not_name_it() -> None:
    spec, recorder = spec_of("sft", steps=1), Recorder([], Cost())
    for arm, schedule in phases(adapted_model(spec), TOKENIZER, TASK, spec, recorder):
        train_by("loop", [(arm, schedule)])
    assert [row.step for row in recorder.steps] == [0]
    assert recorder.steps[0].phase is None


def test_task_of_the_tests_is_the_default_one() -> None:
    assert TASK_SPEC.label == "abacus?demonstrations=worked&style_bits=4&style_shift=4"
