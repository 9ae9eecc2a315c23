from pathlib import Path
from typing import Any

import pytest
import torch
from small import small_spec

from capacity.adapters.files import artifact
from capacity.errors import DataError, TrainingError
from capacity.spec.parts import TaskSpec
from capacity.tasks.abacus import AbacusTask
from capacity.training.run import execute


@pytest.fixture(autouse=True)
def one_thread(loaded: Any) -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("method", "budget"),
    [("grpo", "100"), ("sft", "100"), ("grpo", "full"), ("sft", "full"),
    ("rft", "100"), ("rft-online", "100"), ("random-reward", "100"), ("sft+grpo", "100")],
)  # fmt: skip
def test_the_same_spec_gives_the_same_run_bit_for_bit(method: Any, budget: str) -> None:
    spec = small_spec(method, budget, rate=1e-3)
    first, second = execute(spec, "cpu"), execute(spec, "cpu")
    assert first.steps == second.steps
    assert first.outcomes == second.outcomes
    assert first.artifact == second.artifact
    assert len(first.steps) == 2
    assert any(first.artifact)


def test_seeds_differ_in_prompts_samples_and_projection() -> None:
    first, second = execute(small_spec("grpo", seed=0), "cpu"), execute(small_spec("grpo", seed=1), "cpu")
    assert first.artifact != second.artifact
    assert first.steps[0].code_length_bits != second.steps[0].code_length_bits


def test_metrics_of_a_step_are_those_before_its_update() -> None:
    metrics = execute(small_spec("grpo"), "cpu").steps
    assert metrics[0].kl_to_base_bits == 0.0
    assert metrics[1].kl_to_base_bits > 0.0
    assert all(0 <= row.kl_to_sampler_bits < 1e-6 for row in metrics)
    assert all(len(row.group_hits) == 4 and 0 <= row.reward <= 1 for row in metrics)
    assert all(row.reward == sum(row.group_hits) / 16 for row in metrics)


def test_result_counts_what_both_arms_used() -> None:
    grpo, sft = (execute(small_spec(m), "cpu").result for m in ("grpo", "sft"))
    for result in (grpo, sft):
        assert result.prompts == 8
        assert result.sequences == 32
        assert result.trained_parameters == 84
        assert result.update_bytes == 168
        assert result.n_items == 16
        assert result.accuracy == result.n_correct / 16
        assert result.flops > 0
    assert sft.sampled_tokens == sft.sampled_sequences == 0
    assert grpo.sampled_tokens == grpo.trained_tokens > 0
    assert (sft.heldout_demonstrations, "heldout_demonstrations" in grpo) == (256, False)


def test_rft_counts_its_samples_and_codes_held_out_ones() -> None:
    record = execute(small_spec("rft"), "cpu")
    solved = [4 - row.unsolved_prompts for row in record.steps]
    assert record.result.prompts == sum(solved)
    assert record.result.sequences == 4 * sum(solved)
    assert record.result.sampled_sequences >= 32
    assert record.result.sampled_tokens > 0
    assert 0 < record.result.heldout_demonstrations <= 256
    assert record.result.heldout_code_length_bits > 0


def test_warm_start_and_reinforcement_leave_one_update() -> None:
    record = execute(small_spec("sft+grpo", rates={"sft": 0.003, "grpo": 0.01}), "cpu")
    assert [row.phase for row in record.steps] == ["sft", "grpo"]
    assert record.result.trained_parameters == 84
    assert (record.result.prompts, record.result.sequences, record.result.sampled_sequences) == (8, 32, 16)
    assert record.artifact is not None


def test_what_sees_no_demonstrations_does_not_depend_on_their_style() -> None:
    specs = [small_spec("rft", task=TaskSpec(name="abacus", demonstrations=d)) for d in ("worked", "own")]
    assert specs[0] == specs[1]


def test_base_trains_nothing_and_leaves_no_update() -> None:
    record = execute(small_spec("base"), "cpu")
    assert record.artifact is None
    assert not record.steps
    assert record.result.trained_parameters == record.result.update_bytes == 0


def test_the_stored_update_rebuilds_the_model_that_was_evaluated(model: Any, tokenizer: Any) -> None:
    from capacity.sampling.evaluate import evaluate
    from capacity.tasks.catalog import open_task

    spec = small_spec("sft", rate=0.05)
    record = execute(spec, "cpu")
    assert record.artifact is not None
    adapted = artifact.rebuild(artifact.read(record.artifact, "update"), model, None)
    assert (
        evaluate(adapted.model, tokenizer, open_task(spec.task), spec.evaluation, run_seed=spec.seed).outcomes
        == record.outcomes
    )


@pytest.mark.parametrize(("verdict", "mean"), [(False, "0.000"), (True, "1.000")])
def test_a_reward_that_never_varies_ends_with_a_diagnosis(monkeypatch: Any, verdict: bool, mean: str) -> None:
    monkeypatch.setattr(AbacusTask, "grade", lambda *_: verdict)
    with pytest.raises(TrainingError, match=rf"never varied within a group in 2 steps \(mean reward {mean}"):
        execute(small_spec("grpo"), "cpu")


def test_a_loss_that_is_not_finite_ends_with_a_diagnosis() -> None:
    with pytest.raises(TrainingError, match="the loss is nan at step 1: lower the learning rate, now 1e\\+30"):
        execute(small_spec("sft", "full", rate=1e30), "cpu")


def test_demonstrations_longer_than_the_limit_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"has 2[0-6] tokens, more than max_new_tokens 8"):
        execute(small_spec("sft", max_new_tokens=8), "cpu")


def test_demonstrations_that_hold_the_end_of_a_sequence_are_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr(AbacusTask, "demonstrations", lambda *given: ["1<eos>21"] * given[2])
    with pytest.raises(DataError, match=r"^a demonstration holds '<eos>', which ends a sequence: take it out of "):
        execute(small_spec("sft"), "cpu")


def test_a_split_smaller_than_a_step_is_refused(monkeypatch: Any) -> None:
    full = AbacusTask.items
    monkeypatch.setattr(AbacusTask, "items", lambda self, split, count=None: full(self, split, count or 3))
    with pytest.raises(DataError, match="its train split is too small: 3 items, a step needs 4"):
        execute(small_spec("sft"), "cpu")


def test_factor_cache_changes_nothing(tmp_path: Path) -> None:
    spec = small_spec("grpo")
    cold = execute(spec, "cpu", cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 28
    warm = execute(spec, "cpu", cache=tmp_path)
    assert cold.artifact == warm.artifact


def test_training_improves_on_demonstrations_and_lowers_their_code_length() -> None:
    spec = small_spec("sft", "full", rate=3e-4, steps=12, prompts_per_step=8)
    bits = [row.code_length_bits / row.trained_tokens for row in execute(spec, "cpu").steps]
    assert bits[-1] < 0.95 * bits[0]
