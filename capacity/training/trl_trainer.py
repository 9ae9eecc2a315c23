"""The one module that touches TRL's trainers, and everything private of them that is touched.

Thin subclasses hand each step's items to an arm (`capacity.training.step`) and take its loss back; optimiser,
gradient clipping, accumulation and devices stay TRL's. Overridden: `_get_train_sampler`, `_prepare_inputs`,
`_compute_loss` (GRPO) and `compute_loss` (SFT). `tests/test_trl_bridge.py` is the contract test.
"""

import os
from collections.abc import Sequence
from typing import Any

import datasets
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from capacity.errors import TrainingError
from capacity.spec.parts import TrainingSpec
from capacity.tasks.task import Item
from capacity.training.processes import DividedSampler, Processes
from capacity.training.step import Arm, Batch


def common_arguments(
    training: TrainingSpec, seed: int, device: str, scratch: str, processes: int = 1
) -> dict[str, Any]:
    """Trainer arguments that are the same for both arms: Adam, the rate's schedule, one update a step."""
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
        """The sequences of the next step, all of them in each process: the arm divides them itself."""
        size = self.arm.prompts_per_step * self.arm.sequences_per_prompt
        first = len(self.arm.steps) * size
        return self.arm.batch(self.items[first : first + size])


class PairedGRPOTrainer(_ItemFeed, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer with our rollout, advantages and loss."""

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:  # noqa: ARG002
        return self.arm.loss(inputs)


class PairedSFTTrainer(_ItemFeed, SFTTrainer):  # type: ignore[misc]
    """TRL's SFT trainer with our batches and loss."""

    def compute_loss(
        self,
        model: Any,  # noqa: ARG002
        inputs: Any,
        return_outputs: bool = False,  # noqa: ARG002
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """The arm's loss of its own batch; the other arguments belong to TRL's signature."""
        return self.arm.loss(inputs)


def train(arm: Arm, schedule: Sequence[Item], device: str, scratch: str) -> None:
    """Trains an arm on `schedule`, the prompts of all steps in order.

    Args:
        arm: what a step samples and minimises; it records metrics and costs.
        schedule: steps × the arm's prompts_per_step items.
        device: "cpu" or "cuda".
        scratch: folder that the trainer may write to.

    Raises:
        TrainingError: several GPUs, or several processes, in a way that is not supported.
    """
    training, processes = arm.training, Processes.current()
    _check_processes(arm, processes)
    if processes.count > 1:
        arm.sampler = DividedSampler(arm.sampler, arm.tokenizer.pad_token_id, arm.device, processes)
    items = [item for item in schedule for _ in range(arm.sequences_per_prompt)]
    dataset = datasets.Dataset.from_dict({"prompt": [i.prompt for i in items], "position": range(len(items))})
    arguments = common_arguments(training, arm.spec.seed, device, scratch, processes.count)
    untrained = {name: p.detach().clone() for name, p in arm.adapted.trained.items()}
    trainer: PairedGRPOTrainer | PairedSFTTrainer
    if arm.trainer == "grpo":
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
    if trainer.args.n_gpu > 1:  # torch would split each batch over the GPUs and train on other batches than the spec's
        raise TrainingError("a run uses one GPU: make one visible with CUDA_VISIBLE_DEVICES")
    trainer.remove_callback(PrinterCallback)
    trainer.arm = arm
    trainer.items = items
    trainer.train()


def _check_processes(arm: Arm, processes: Processes) -> None:
    """Whether this run can be made by as many processes as were started."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes.count:
        raise TrainingError(
            f"this is one of {started} processes that know nothing of each other: a run over several is made by "
            "torchrun --nproc-per-node N -m capacity.studies.torchrun STUDY.toml"
        )
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise TrainingError(
                f"{name} divides the weights, which rollouts and factors need whole: start plain processes, each with "
                "the whole model, loaded with ?dtype=bf16 or ?quantised=nf4 if it is large"
            )
    sequences = arm.training.prompts_per_step * arm.training.samples_per_prompt
    if sequences % processes.count:
        raise TrainingError(f"{sequences} sequences a step cannot be divided over {processes.count} processes evenly")
    if processes.count > 1 and arm.spec.rollouts is not None:
        raise TrainingError("an engine's rollouts serve one process: leave out rollouts, or start one process")


def _restore_fp32(arm: Arm, untrained: dict[str, Tensor]) -> None:
    """Undoes TRL's cast of trained parameters to bf16, which it makes when the base is quantised."""
    for name, parameter in arm.adapted.trained.items():
        parameter.data = untrained[name]


def _unused_reward(**_: Any) -> list[float]:
    """TRL wants a reward function; the arm grades its own samples."""
    raise AssertionError("the arm grades its own samples")
