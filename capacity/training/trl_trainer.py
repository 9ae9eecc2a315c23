"""Trains an arm by TRL's trainers. No other module uses these trainers, or anything private of TRL.

Thin subclasses hand each step's items to an arm (`capacity.training.arm`) and take its loss back. Optimiser, gradient
clipping, accumulation and devices remain TRL's. So a run made here checks one that `capacity.training.loop` makes. The
subclasses override `_get_train_sampler`, `_prepare_inputs`, `_compute_loss` (GRPO) and `compute_loss` (SFT).
`tests/test_trl_bridge.py` is the contract test.
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import datasets
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from capacity.errors import TrainingError
from capacity.models.loading import without_router_logits
from capacity.spec.parts import TrainingSpec
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.batch import Batch
from capacity.training.divide import divide


def common_arguments(
    training: TrainingSpec, seed: int, device: str, scratch: str, processes: int = 1
) -> dict[str, Any]:
    """Returns the trainer arguments that all methods share: Adam, the schedule of the rate, one update per step."""
    return {
        "output_dir": scratch,
        "max_steps": training.steps,
        "per_device_train_batch_size": training.prompts_per_step * training.samples_per_prompt // processes,
        "gradient_accumulation_steps": 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup_steps,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "max_grad_norm": training.max_grad_norm,
        "seed": seed,
        "use_cpu": device == "cpu",
        "ddp_backend": "gloo" if device == "cpu" and processes > 1 else None,
        "bf16": False,
        "gradient_checkpointing": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class _ItemFeed:
    """Feeds a trainer the laid-out items of all steps, in order, through an arm."""

    arm: Arm
    items: Sequence[Item]

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:  # noqa: ARG002
        return SequentialSampler(range(len(self.items)))

    def _prepare_inputs(self, rows: Any) -> Batch:  # noqa: ARG002
        """Returns all sequences of the next step in each process, because the arm itself divides them."""
        size = self.arm.prompts_per_step * self.arm.sequences_per_prompt
        first = len(self.arm.steps) * size
        return self.arm.batch(self.items[first : first + size])


class PairedGRPOTrainer(_ItemFeed, GRPOTrainer):  # type: ignore[misc]
    """Runs TRL's GRPO trainer with the rollouts, advantages and loss of an arm."""

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:  # noqa: ARG002
        return self.arm.loss(inputs)


class PairedSFTTrainer(_ItemFeed, SFTTrainer):  # type: ignore[misc]
    """Runs TRL's SFT trainer with the batches and loss of an arm."""

    def compute_loss(
        self,
        model: Any,  # noqa: ARG002
        inputs: Any,
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Returns the arm's loss of its own batch. The other arguments belong to TRL's signature."""
        return self.arm.loss(inputs)


def train(arm: Arm, schedule: Sequence[Item]) -> None:
    """Trains an arm on `schedule`, the prompts of all steps in order.

    Args:
        arm: the arm to train. It samples, computes the loss, and records metrics and costs.
        schedule: the steps × `prompts_per_step` items.

    Raises:
        TrainingError: if several GPUs are visible, or processes were started in a way that is not supported.
    """
    with TemporaryDirectory() as scratch:  # nothing is saved, but the trainers want a folder
        _train(arm, schedule, scratch)


def _train(arm: Arm, schedule: Sequence[Item], scratch: str) -> None:
    training, processes = arm.training, divide(arm)
    items = [item for item in schedule for _ in range(arm.sequences_per_prompt)]
    dataset = datasets.Dataset.from_dict({"prompt": [i.prompt for i in items], "position": range(len(items))})
    arguments = common_arguments(training, arm.spec.seed, arm.device.type, scratch, processes.count)
    untrained = {name: p.detach().clone() for name, p in arm.adapted.trained.items()}
    trainer: PairedGRPOTrainer | PairedSFTTrainer
    if arm.trl_trainer == "grpo":
        trainer = PairedGRPOTrainer(
            model=arm.adapted.model,
            reward_funcs=_unused_reward,
            args=GRPOConfig(
                num_generations=training.samples_per_prompt,
                max_completion_length=training.max_new_tokens,
                beta=0.0,
                loss_type="grpo",
                **arguments,
            ),
            train_dataset=dataset,
            processing_class=arm.tokenizer,
        )
    else:
        trainer = PairedSFTTrainer(
            model=arm.adapted.model,
            args=SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **arguments),
            train_dataset=dataset,
            processing_class=arm.tokenizer,
            data_collator=list,
        )
    _restore_fp32(arm, untrained)
    without_router_logits(arm.adapted.bare)
    if trainer.args.n_gpu > 1:  # torch would split each batch over the GPUs and train on other batches than the spec's
        raise TrainingError("a run uses one GPU: make one visible with CUDA_VISIBLE_DEVICES")
    trainer.remove_callback(PrinterCallback)
    trainer.arm = arm
    trainer.items = items
    trainer.train()


def _restore_fp32(arm: Arm, untrained: dict[str, Tensor]) -> None:
    """Undoes TRL's cast of trained parameters to bf16, which it makes if the base is quantised."""
    for name, parameter in arm.adapted.trained.items():
        parameter.data = untrained[name]


def _unused_reward(**_: Any) -> list[float]:
    """Stands in for the reward function that TRL requires. The arm grades its own samples."""
    raise AssertionError("the arm grades its own samples")
