"""Rejection-sampling fine-tuning: what it trains on, and on whose samples."""

from collections import Counter
from typing import Any

import pytest
from untrained import HopelessTask, LuckyTask, arm_of, laid_out, sequences, spec_of, text

from capacity.errors import TrainingError
from capacity.spec.methods import Method
from capacity.tasks.task import Item

TASK = LuckyTask()
RFT: tuple[Method, ...] = ("rft", "rft-online")
SHORT = {"max_new_tokens": 6}


class PartlyHopelessTask(LuckyTask):
    """As the lucky one, but every other problem is never solved."""

    def grade(self, item: Item, completion: str) -> bool:
        return int(item.id.split("-")[1]) % 2 == 0 and super().grade(item, completion)


@pytest.mark.parametrize("method", RFT)
def test_only_right_samples_are_trained_on_and_each_prompt_as_often(method: Method) -> None:
    arm = arm_of(spec_of(method, **SHORT), TASK)
    prompts = TASK.items("train", 6)
    batch = arm.batch(laid_out(arm, prompts))
    by_prompt = {item.prompt: item for item in prompts}
    rows = sequences(batch)
    assert [prompt for prompt, _ in rows] == [item.prompt for item in laid_out(arm, prompts)]
    assert all(TASK.grade(by_prompt[prompt], text(tokens)) for prompt, tokens in rows)
    assert (batch.rewards, batch.advantages) == (None, None)
    assert batch.extra["unsolved_prompts"] == 0
    assert batch.extra["different_samples"] <= len(rows)


def test_right_samples_are_repeated_in_turn() -> None:
    arm, twin = (arm_of(spec_of("rft", **SHORT), TASK) for _ in range(2))
    prompts = TASK.items("train", 6)
    k = arm.sequences_per_prompt
    right = twin.answered(twin.right_samples(prompts, k, twin.rng))
    rows = [tokens for _, tokens in sequences(arm.batch(laid_out(arm, prompts)))]
    for i, samples in enumerate(right):
        assert rows[k * i : k * (i + 1)] == [samples[j % len(samples)].ids for j in range(k)]


def test_prompts_that_are_never_solved_are_drawn_eight_times_left_out_and_counted() -> None:
    task = PartlyHopelessTask()
    arm = arm_of(spec_of("rft", **SHORT), task)
    prompts = task.items("train", 6)
    k = arm.sequences_per_prompt
    batch = arm.batch(laid_out(arm, prompts))
    assert batch.extra["unsolved_prompts"] == 3
    assert Counter(prompt for prompt, _ in sequences(batch)) == {prompts[i].prompt: k for i in (0, 2, 4)}
    assert (arm.cost.prompts, arm.cost.sequences) == (3, 3 * k)
    assert arm.cost.sampled_sequences >= 6 * k + 7 * 3 * k
    assert arm.cost.sampled_sequences % k == 0


@pytest.mark.parametrize("method", RFT)
def test_nothing_right_is_an_error_that_says_what_to_do(method: Method) -> None:
    arm = arm_of(spec_of(method, **SHORT), HopelessTask())
    with pytest.raises(TrainingError, match=r"^none of 2 prompts was solved in 32 samples each: .*choose a task that"):
        arm.batch(laid_out(arm, TASK.items("train", 2)))


def first_batch(method: Method, scale: float) -> Any:
    arm = arm_of(spec_of(method, **SHORT), TASK, scale)
    return sequences(arm.batch(laid_out(arm, TASK.items("train", 4))))


def test_rft_samples_the_base_whatever_the_update_and_rft_online_the_current_model() -> None:
    assert first_batch("rft", 0.0) == first_batch("rft", 0.5) == first_batch("rft-online", 0.0)
    assert first_batch("rft-online", 0.0) != first_batch("rft-online", 0.5)


@pytest.mark.parametrize("method", RFT)
def test_first_samples_are_those_of_grpo(method: Method) -> None:
    prompts = TASK.items("train", 4)
    grpo = arm_of(spec_of("grpo", **SHORT), TASK)
    sampled = grpo.batch(laid_out(grpo, prompts))
    k = grpo.sequences_per_prompt
    rows = [tokens for _, tokens in sequences(sampled)]
    rewarded = [
        [tokens for tokens, reward in zip(rows[i : i + k], sampled.rewards[i : i + k], strict=True) if reward]
        for i in range(0, len(rows), k)
    ]
    assert any(rewarded)
    arm = arm_of(spec_of(method, **SHORT), TASK)
    found = arm.answered(arm.right_samples(prompts, k, arm.rng))
    drawn = [[sample.ids for sample in samples] for samples in found]
    assert [ours for ours, theirs in zip(drawn, rewarded, strict=True) if theirs] == [r for r in rewarded if r]


def test_loss_is_the_mean_negative_log_likelihood_and_counts_as_supervised() -> None:
    arm = arm_of(spec_of("rft", **SHORT), TASK)
    batch = arm.batch(laid_out(arm, TASK.items("train", 4)))
    loss = float(arm.loss(batch).detach())
    (row,) = arm.steps
    assert arm.trl_trainer == "sft"
    assert loss == pytest.approx(row.code_length_bits / row.trained_tokens * 0.6931471805599453, rel=1e-5)
    assert {"unsolved_prompts", "different_samples"} <= row.model_fields_set
    assert row.reward is None
