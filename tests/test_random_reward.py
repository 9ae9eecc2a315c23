"""The control whose rewards say nothing: everything as in GRPO but which samples are rewarded."""

import numpy as np
import pytest
import torch
from untrained import LuckyTask, arm_of, laid_out, sequences, spec_of

from capacity.training.advantage import dead_groups, group_advantages, group_hits

TASK = LuckyTask()
PROMPTS = TASK.items("train", 12)
SHORT = {"max_new_tokens": 6}


def test_as_many_of_each_group_are_rewarded_but_not_the_same_ones() -> None:
    grpo, control = (arm_of(spec_of(m, **SHORT), TASK) for m in ("grpo", "random-reward"))
    ours, theirs = grpo.batch(laid_out(grpo, PROMPTS)), control.batch(laid_out(control, PROMPTS))
    assert sequences(ours) == sequences(theirs)
    hits = group_hits(ours.rewards, 4)
    assert group_hits(theirs.rewards, 4) == hits
    assert 0 < dead_groups(hits, 4) < 12
    assert not torch.equal(ours.rewards, theirs.rewards)
    torch.testing.assert_close(theirs.advantages, group_advantages(theirs.rewards, 4))
    dead = [i for i, h in enumerate(hits) if h in (0, 4)]
    assert all(not theirs.advantages.view(-1, 4)[i].any() for i in dead)


def test_rewards_are_the_same_every_time() -> None:
    first, second = (arm_of(spec_of("random-reward", **SHORT), TASK) for _ in range(2))
    other = arm_of(spec_of("random-reward", seed=1, **SHORT), TASK)
    graded = torch.tensor([1.0, 0.0, 0.0, 1.0] * 64)
    assert torch.equal(first.rewarded(graded), second.rewarded(graded))
    assert not torch.equal(first.rewarded(graded), other.rewarded(graded))


def test_every_sample_of_a_group_is_as_likely_to_be_rewarded() -> None:
    arm = arm_of(spec_of("random-reward", **SHORT), TASK)
    groups, n = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]), 4000
    share = torch.stack([arm.rewarded(groups) for _ in range(n)]).mean(0).numpy()
    expected = np.array([0.25] * 4 + [0.75] * 4)
    assert share == pytest.approx(expected, abs=5 * np.sqrt(0.25 * 0.75 / n))


def test_metrics_show_the_permuted_groups() -> None:
    arm = arm_of(spec_of("random-reward", **SHORT), TASK)
    batch = arm.batch(laid_out(arm, PROMPTS))
    arm.loss(batch)
    (row,) = arm.steps
    assert list(row.group_hits) == group_hits(batch.rewards, 4)
    assert row.reward == pytest.approx(float(batch.rewards.mean()))
