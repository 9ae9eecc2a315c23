"""Our arms against stock TRL: same batch, same loss and gradient; and the contract on what the bridge overrides."""

import inspect
from typing import Any

import datasets
import pytest
import torch
from sizes import chosen, within
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from capacity.adapters.attach import attach
from capacity.plan.specs import trained_spec
from capacity.spec.adapters import Adapter, FullUpdate
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.tasks.abacus import AbacusTask
from capacity.training.batch import Batch
from capacity.training.grpo import GrpoArm
from capacity.training.sft import SftArm
from capacity.training.trl_trainer import PairedGRPOTrainer, PairedSFTTrainer, common_arguments

ABACUS = TaskSpec(name="abacus", demonstrations="worked")


def spec_of(method: Any, budget: str | None) -> RunSpec:
    model = "abacus-0.9m"
    size = within(model, budget, rank=2) if budget else chosen(model, "full")
    return trained_spec(model, ABACUS, method, size, 0, "bf16", rates={method: 1e-3})


def adapted_with_nonzero_update(model: Any, adapter: Adapter) -> Any:
    adapted = attach(model, adapter, None)
    generator = torch.Generator().manual_seed(0)
    scale = 1e-3 if isinstance(adapter, FullUpdate) else 0.05
    adapted.set_update({n: scale * torch.randn(t.shape, generator=generator) for n, t in adapted.update().items()})
    return adapted


def gradients(adapted: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = adapted.trained
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def rows(batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
    r = batch.rollout
    prompts = [ids[m.bool()].tolist() for ids, m in zip(r.prompt_ids, r.prompt_mask, strict=True)]
    completions = [ids[m.bool()].tolist() for ids, m in zip(r.completion_ids, r.completion_mask, strict=True)]
    return prompts, completions


@pytest.mark.parametrize("budget", ["13", "100", None])
def test_grpo_loss_and_gradient_equal_stock_trl(model: Any, tokenizer: Any, tmp_path: Any, budget: str | None) -> None:
    spec = spec_of("grpo", budget)
    assert spec.training is not None
    adapted = adapted_with_nonzero_update(model, spec.adapter)
    items = [item for item in AbacusTask().items("train", 4) for _ in range(8)]
    arm = GrpoArm(adapted, tokenizer, AbacusTask(), spec)
    batch = arm.batch(items)
    assert 0 < float(batch.rewards.mean()) < 1
    loss = arm.loss(batch)
    ours = gradients(adapted, loss)

    prompts, completions = rows(batch)
    trainer = GRPOTrainer(
        model=adapted.model,
        reward_funcs=lambda **_: batch.rewards.tolist(),
        args=GRPOConfig(
            num_generations=8,
            max_completion_length=spec.training.max_new_tokens,
            beta=0.0,
            loss_type="grpo",
            **{**common_arguments(spec.training, 0, "cpu", str(tmp_path)), "per_device_train_batch_size": 32},
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": [i.prompt for i in items]}),
        processing_class=tokenizer,
        rollout_func=lambda *_: {"prompt_ids": prompts, "completion_ids": completions, "logprobs": None},
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._generate_and_score_completions([{"prompt": i.prompt} for i in items])
    torch.testing.assert_close(inputs["advantages"], batch.advantages, atol=1e-6, rtol=1e-6)
    stock_loss = trainer._compute_loss(trainer.model, inputs)
    stock = gradients(adapted, stock_loss)
    # On policy the loss is a mean of advantages, zero up to rounding; its gradient is what learns.
    torch.testing.assert_close(loss, stock_loss, atol=1e-6, rtol=1e-5)
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-4
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, stock[name], atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("budget", ["13", "100", None])
def test_sft_loss_and_gradient_equal_stock_trl(model: Any, tokenizer: Any, tmp_path: Any, budget: str | None) -> None:
    spec = spec_of("sft", budget)
    assert spec.training is not None
    adapted = adapted_with_nonzero_update(model, spec.adapter)
    items = [item for item in AbacusTask().items("train", 4) for _ in range(8)]
    arm = SftArm(adapted, tokenizer, AbacusTask(), spec)
    batch = arm.batch(items)
    loss = arm.loss(batch)
    ours = gradients(adapted, loss)

    prompts, completions = rows(batch)
    texts = [tokenizer.decode(c, skip_special_tokens=True) for c in completions]
    trainer = SFTTrainer(
        model=adapted.model,
        args=SFTConfig(
            completion_only_loss=True,
            max_length=None,
            **{**common_arguments(spec.training, 0, "cpu", str(tmp_path)), "per_device_train_batch_size": 32},
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": [i.prompt for i in items], "completion": texts}),
        processing_class=tokenizer,
    )
    assert [r["input_ids"] for r in trainer.train_dataset] == [p + c for p, c in zip(prompts, completions, strict=True)]
    trainer.model.train()
    inputs = trainer.data_collator(list(trainer.train_dataset))
    stock_loss = trainer.compute_loss(trainer.model, dict(inputs))
    stock = gradients(adapted, stock_loss)
    torch.testing.assert_close(loss, stock_loss, atol=1e-6, rtol=1e-5)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, stock[name], atol=2e-6, rtol=1e-4, msg=name)


def test_what_the_bridge_overrides_exists_in_trl() -> None:
    assert list(inspect.signature(GRPOTrainer._compute_loss).parameters) == ["self", "model", "inputs"]
    assert list(inspect.signature(GRPOTrainer._prepare_inputs).parameters) == ["self", "generation_batch"]
    assert list(inspect.signature(GRPOTrainer._get_train_sampler).parameters) == ["self", "dataset"]
    assert list(inspect.signature(SFTTrainer._prepare_inputs).parameters) == ["self", "inputs"]
    theirs = inspect.signature(SFTTrainer.compute_loss).parameters
    assert list(inspect.signature(PairedSFTTrainer.compute_loss).parameters) == list(theirs)
    for trainer in (PairedGRPOTrainer, PairedSFTTrainer):
        mro = [c.__name__ for c in trainer.__mro__]
        assert mro.index("_ItemFeed") < mro.index("_BaseTrainer")
