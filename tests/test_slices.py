"""A step in slices is the step: loss, gradient, metrics; and a run that fits is not sliced at all."""

from typing import Any

import pytest
import torch
from untrained import LuckyTask, arm_of, laid_out, spec_of

from capacity.forward.rollout import Rollout
from capacity.plan.memory import rows_at_once
from capacity.plan.models import ALIASES
from capacity.sampling.memory_slices import slice_sizes, summed

TASK = LuckyTask()
METHODS = ["sft", "rft", "grpo", "random-reward"]


def one_step(method: Any, at_once: int | None, budget: str = "100") -> tuple[Any, float, dict[str, torch.Tensor]]:
    """An arm after the loss of its first step, the loss, and its gradient."""
    arm = arm_of(spec_of(method, budget=budget), TASK, scale=1e-3 if budget == "full" else 0.1)
    if at_once is not None:
        arm.at_once = lambda *_, **__: at_once
    loss = arm.loss(arm.batch(laid_out(arm, TASK.items("train", arm.prompts_per_step))))
    torch.autograd.backward(loss)
    return arm, float(loss.detach()), {name: p.grad.clone() for name, p in arm.adapted.trained.items()}


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.reshape(-1) for g in gradients.values()])


@pytest.mark.parametrize("budget", ["100", "full"])
@pytest.mark.parametrize("method", METHODS)
def test_sliced_loss_and_gradient_are_those_of_the_whole_step(method: Any, budget: str) -> None:
    whole, loss, gradients = one_step(method, None, budget)
    assert float(flat(gradients).abs().max()) > 1e-3
    for at_once in (1, 3, 8):
        sliced, sliced_loss, sliced_gradients = one_step(method, at_once, budget)
        assert sliced_loss == pytest.approx(loss, abs=1e-6)
        torch.testing.assert_close(flat(sliced_gradients), flat(gradients), atol=1e-6, rtol=1e-6)
        (row,), (sliced_row,) = whole.steps, sliced.steps
        assert row.model_fields_set == sliced_row.model_fields_set
        for name, value in row.model_dump().items():
            assert getattr(sliced_row, name) == pytest.approx(value, rel=1e-5, abs=1e-6), name
        assert whole.cost == sliced.cost


def test_a_step_that_fits_is_one_pass_whose_graph_is_kept() -> None:
    arm = arm_of(spec_of("grpo"), TASK)
    batch = arm.batch(laid_out(arm, TASK.items("train", arm.prompts_per_step)))
    assert arm.at_once(batch.rollout) >= batch.sequences
    assert arm.loss(batch).grad_fn.name() != "_SumBackward"
    arm.at_once = lambda *_, **__: 5
    assert arm.loss(batch).grad_fn.name() == "_SumBackward"


def test_gradients_gathered_before_are_kept_and_scaled_losses_scale() -> None:
    w = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    unused = torch.nn.Parameter(torch.tensor(1.0))
    w.grad = torch.tensor([10.0, 10.0])
    loss = summed([lambda: w[0] ** 2, lambda: 5 * w[1]], [w, unused])
    assert w.grad.tolist() == [10.0, 10.0]
    torch.autograd.backward(loss / 2)
    assert (float(loss.detach()), w.grad.tolist(), unused.grad) == (19.0, [12.0, 12.5], None)


def test_a_failing_slice_leaves_the_gradients_alone() -> None:
    w = torch.nn.Parameter(torch.tensor(2.0))
    w.grad = torch.tensor(7.0)

    def broken() -> torch.Tensor:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        summed([lambda: w**2, broken], [w])
    assert float(w.grad) == 7.0


@pytest.mark.parametrize(
    ("rows", "at_once", "sizes"), [(10, 4, [4, 3, 3]), (8, 8, [8]), (3, 1, [1, 1, 1]), (5, 9, [5])]
)
def test_slices_are_few_and_even(rows: int, at_once: int, sizes: list[int]) -> None:
    assert slice_sizes(rows, at_once) == sizes


def test_samples_drawn_in_parts_are_those_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(size: int) -> tuple[Any, torch.Tensor]:
        monkeypatch.setattr("capacity.plan.memory.SAMPLED_AT_ONCE", size)
        arm = arm_of(spec_of("grpo"), TASK, scale=0.1)
        items = laid_out(arm, TASK.items("train", arm.prompts_per_step))
        return arm.answered(arm.sampled(items, 1.0, arm.rng))

    together, rewards = drawn(256)
    for size in (1, 5):
        parts, part_rewards = drawn(size)
        for name, tensor in together.tensors():
            torch.testing.assert_close(getattr(parts, name), tensor, atol=1e-5, rtol=0, msg=name)
        assert torch.equal(part_rewards, rewards)


def test_trimming_drops_columns_that_are_padding_in_every_row() -> None:
    tokens, mask = torch.arange(12).view(2, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    ends = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    found = Rollout(tokens, mask, tokens, ends, tokens.float()).trimmed()
    assert found.prompt_ids.tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]
    assert found.completion_ids.tolist() == found.sampler_logprobs.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert (found.prompt_mask.shape, found.completion_mask.tolist()) == ((2, 5), [[1, 1, 1], [1, 0, 0]])
    again = found.trimmed()
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(again.tensors(), found.tensors(), strict=True))


def test_every_step_of_the_embedded_models_is_one_slice() -> None:
    for name in ("abacus-0.2m", "abacus-0.9m", "abacus-3m"):
        rows = rows_at_once(ALIASES[name].shape, prompt_tokens=20, new_tokens=44)
        assert rows >= 256, name
        held_out = rows_at_once(ALIASES[name].shape, prompt_tokens=20, new_tokens=44, backward=False)
        assert held_out >= 256, name
