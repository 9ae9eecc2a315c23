"""What the arms of a pair have in common: prompts, sequences or tokens."""

from collections import Counter
from typing import Any

import pytest
from untrained import LuckyTask, arm_of, laid_out, sequences, spec_of

from capacity.spec.methods import TRAINED, Method
from capacity.training.batches import prompt_schedule

TASK = LuckyTask()
ONE_PHASE: tuple[Method, ...] = tuple(m for m in TRAINED if m != "sft+grpo")


def steps_of(arm: Any, steps: int) -> list[Any]:
    """The batches of the first steps, their losses taken but no update made."""
    per_step = arm.prompts_per_step
    schedule = prompt_schedule(TASK, 0, steps, per_step)
    batches = []
    for step in range(steps):
        batches.append(arm.batch(laid_out(arm, schedule[step * per_step : (step + 1) * per_step])))
        arm.loss(batches[-1]).detach()
    return batches


def test_matching_prompts_gives_identical_prompts_and_as_many_sequences() -> None:
    seen = {}
    for method in ONE_PHASE:
        arm = arm_of(spec_of(method), TASK)
        seen[method] = [prompt for batch in steps_of(arm, 1) for prompt, _ in sequences(batch)]
        assert (arm.cost.prompts, arm.cost.sequences) == (4, 16)
    assert all(prompts == seen["sft"] for prompts in seen.values())
    assert set(Counter(seen["sft"]).values()) == {4}


def test_matching_sequences_gives_each_demonstration_a_prompt_of_its_own() -> None:
    sft, grpo = (arm_of(spec_of(m, match="sequences"), TASK) for m in ("sft", "grpo"))
    ours, theirs = (sequences(steps_of(arm, 1)[0]) for arm in (sft, grpo))
    assert (sft.cost.sequences, grpo.cost.sequences) == (16, 16)
    assert (sft.cost.prompts, grpo.cost.prompts) == (16, 4)
    assert set(Counter(prompt for prompt, _ in ours).values()) == {1}
    assert set(Counter(prompt for prompt, _ in theirs).values()) == {4}
    assert {prompt for prompt, _ in theirs} == {prompt for prompt, _ in ours[:4]}


@pytest.mark.parametrize("method", ["sft", "grpo", "rft", "random-reward"])
@pytest.mark.parametrize("budget", [150, 260])
def test_matching_tokens_keeps_the_tokens_of_all_steps_within_one_group(method: Method, budget: int) -> None:
    arm = arm_of(spec_of(method, match="tokens", tokens_per_step=budget, max_new_tokens=26), TASK)
    batches = steps_of(arm, 6)
    k, total = arm.sequences_per_prompt, 0
    for step, batch in enumerate(batches, start=1):
        lengths = batch.rollout.completion_mask.sum(1).view(-1, k).sum(1).tolist()
        total += sum(lengths)
        assert len(lengths) <= arm.prompts_per_step
        if len(lengths) > 1:
            assert total <= budget * step
        if len(lengths) < arm.prompts_per_step - batch.extra.get("unsolved_prompts", 0):
            assert total > budget * step - 4 * 26  # not even the shortest group more would have fitted
    assert total == arm.cost.trained_tokens == sum(row.trained_tokens for row in arm.steps)
    assert abs(total - 6 * budget) <= k * 26


def test_matching_tokens_drops_rewards_and_advantages_with_their_sequences() -> None:
    arm = arm_of(spec_of("grpo", match="tokens", tokens_per_step=150, max_new_tokens=26), TASK)
    (batch,) = steps_of(arm, 1)
    count = len(batch.rollout.completion_ids)
    assert 0 < count < 16
    assert len(batch.rewards) == len(batch.advantages) == batch.sequences == count
    assert len(arm.steps[0].group_hits) == count // 4
    assert (arm.cost.prompts, arm.cost.sequences, arm.cost.sampled_sequences) == (count // 4, count, 16)


def test_matching_tokens_with_room_for_all_is_matching_prompts() -> None:
    roomy = arm_of(spec_of("sft", match="tokens", tokens_per_step=10_000), TASK)
    plain = arm_of(spec_of("sft"), TASK)
    for ours, theirs in zip(steps_of(roomy, 2), steps_of(plain, 2), strict=True):
        assert sequences(ours) == sequences(theirs)
    assert roomy.cost == plain.cost


def test_at_least_one_prompt_is_trained_on() -> None:
    arm = arm_of(spec_of("sft", match="tokens", tokens_per_step=1), TASK)
    assert [len(b.rollout.completion_ids) for b in steps_of(arm, 2)] == [4, 4]


def test_flops_are_two_forward_and_two_or_four_backward_a_parameter_and_token() -> None:
    sft, grpo, full = (arm_of(spec, TASK) for spec in (spec_of("sft"), spec_of("grpo"), spec_of("sft", budget="full")))
    for arm, a_token in ((sft, 4), (grpo, 4), (full, 6)):
        (batch,) = steps_of(arm, 1)
        r = batch.rollout
        trained = a_token * arm.parameters * int(r.prompt_mask.sum() + r.completion_mask.sum())
        sampled = 2 * arm.parameters * int(r.prompt_mask.sum() + r.completion_mask.sum()) if arm is grpo else 0
        assert arm.cost.flops == trained + sampled
    # The frozen factors of an adapter are multiplied with, too.
    assert sft.parameters == grpo.parameters > full.parameters == 217_984
