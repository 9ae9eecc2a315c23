"""Stock TRL and PEFT as their users write it, at the sizes of a run of the check."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from peft import TinyLoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_post_hook
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from capacity.models.loading import load
from capacity.plan.model_shapes import ModelShape
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.batches import DEMONSTRATION_STREAM, generator, prompt_schedule
from proofs.gpu_check.clock import median_step, now


class Stock:
    """A model with PEFT's TinyLoRA, of as many parameters as the spec's, for TRL's trainers and for `generate`.

    Args:
        spec: a run whose adapter is a TinyLoRA.
        shape: the shape of its model.
        device: "cpu" or "cuda".
    """

    def __init__(self, spec: RunSpec, shape: ModelShape, device: str) -> None:
        adapter = spec.adapter
        assert isinstance(adapter, TinyLora)
        modules = shape.adapted_modules(adapter.targets)
        bare, self.tokenizer = load(spec.model, device)
        self.device = device
        config = TinyLoraConfig(
            r=adapter.rank,
            u=adapter.u,
            weight_tying=1 - adapter.groups / len(modules),
            target_modules=[m.name for m in modules],
            task_type="CAUSAL_LM",
        )
        self.model: Any = get_peft_model(bare, config)

    def step_seconds(self, spec: RunSpec, loaded: Bases) -> float:
        """Trains a run and returns the median time of its steps."""
        marks: list[float] = []
        with tempfile.TemporaryDirectory() as scratch, _marked(marks, self.device):
            trainer = self._grpo(spec, loaded, scratch) if spec.method == "grpo" else self._sft(spec, loaded, scratch)
            trainer.train()
        return median_step(marks)

    def _settings(self, spec: RunSpec, scratch: str) -> dict[str, Any]:
        training = spec.training
        assert training is not None
        return {
            "output_dir": scratch,
            "max_steps": training.steps,
            "per_device_train_batch_size": training.prompts_per_step * training.samples_per_prompt,
            "learning_rate": training.learning_rate,
            "use_cpu": self.device == "cpu",
            "bf16": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }

    def _grpo(self, spec: RunSpec, loaded: Bases, scratch: str) -> Any:
        training, task = spec.training, loaded.task(spec.task)
        assert training is not None
        items = prompt_schedule(task, spec.seed, training.steps, training.prompts_per_step)

        def reward(completions: Sequence[str], position: Sequence[int], **_: Any) -> list[float]:
            return [float(task.grade(items[p], text)) for p, text in zip(position, completions, strict=True)]

        arguments = GRPOConfig(
            num_generations=training.samples_per_prompt,
            max_completion_length=training.max_new_tokens,
            temperature=1.0,
            beta=0.0,
            loss_type="grpo",
            shuffle_dataset=False,
            **self._settings(spec, scratch),
        )
        rows = {"prompt": [item.prompt for item in items], "position": list(range(len(items)))}
        return GRPOTrainer(
            model=self.model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=self.tokenizer,
        )

    def _sft(self, spec: RunSpec, loaded: Bases, scratch: str) -> Any:
        training, task = spec.training, loaded.task(spec.task)
        assert training is not None
        items = prompt_schedule(task, spec.seed, training.steps, training.prompts_per_step)
        rng, k = generator(spec.seed, DEMONSTRATION_STREAM), training.samples_per_prompt
        rows = [(item.prompt, f" {text}") for item in items for text in task.demonstrations(item, k, rng)]
        prompts, completions = zip(*rows, strict=True)
        return SFTTrainer(
            model=self.model,
            args=SFTConfig(max_length=None, **self._settings(spec, scratch)),
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts, "completion": completions}),
            processing_class=self.tokenizer,
        )

    @torch.no_grad()
    def generated(self, prompts: Sequence[Sequence[int]], longest: int) -> int:
        """Samples a completion of each prompt by `generate`, and returns the number of tokens."""
        batch = self.tokenizer.pad({"input_ids": [list(p) for p in prompts]}, padding_side="left", return_tensors="pt")
        found = self.model.generate(
            **batch.to(self.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return int((found[:, batch["input_ids"].shape[1] :] != self.tokenizer.pad_token_id).sum())


@contextmanager
def _marked(marks: list[float], device: str) -> Iterator[None]:
    """Notes the time at which each step of an optimiser has ended."""
    hook = register_optimizer_step_post_hook(lambda *_: marks.append(now(device)))
    try:
        yield
    finally:
        hook.remove()
