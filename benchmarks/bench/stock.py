"""Stock TRL and PEFT as their users write it: a trainer, a data set, a reward function and a `TinyLoraConfig`.

Nothing of TRL is subclassed or patched. What only costs time is off: gradient checkpointing, saving, reporting. The
settings that decide the result are those of the spec. The data set holds the prompts of the run in their order.
"""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import TinyLoraConfig, get_peft_model
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from benchmarks.bench.models import first_prompts, opened
from benchmarks.bench.optimiser import steps_in_turns
from benchmarks.bench.side import Gate
from benchmarks.bench.workloads import by_step, digest, graded, modules, written
from capacity.models.ends import end_tokens
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Item, Task
from capacity.training.batches import DEMONSTRATION_STREAM, generator, prompt_schedule

Trainer = GRPOTrainer | SFTTrainer
FEW_MODULES = 50  # an injection into more takes so long that a first call's extra work is lost in it
IGNORED = -100  # the label of a token that has no loss


def tinylora(run: RunSpec) -> TinyLoraConfig:
    """Returns PEFT's TinyLoRA with as many trained parameters as the run's, in as many groups of the same rank."""
    adapter = run.adapter
    assert isinstance(adapter, TinyLora)
    return TinyLoraConfig(
        r=adapter.rank,
        u=adapter.u,
        weight_tying=1 - adapter.groups / modules(run),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def trained_parameters(model: Any) -> int:
    """Returns the number of scalars that an optimiser would change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def settings(run: RunSpec, scratch: str) -> dict[str, Any]:
    """Returns the trainer arguments of a run."""
    training = run.training
    assert training is not None
    return {
        "output_dir": scratch,
        "max_steps": training.steps,
        "per_device_train_batch_size": training.prompts_per_step * training.samples_per_prompt,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup_steps,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "weight_decay": 0.0,
        "max_grad_norm": training.max_grad_norm,
        "seed": run.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class Reward:
    """Grades completions by the task, and remembers what it saw of each step."""

    __name__ = "reward"

    def __init__(self, task: Task, items: Sequence[Item]) -> None:
        self.task, self.items = task, items
        self.lengths: list[list[int]] = []
        self.rewards: list[list[float]] = []
        self.prompts: list[list[Any]] = []

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any, position: Any, **_: Any) -> list[float]:
        """Returns the rewards of a step's completions. `position` says which item each belongs to."""
        self.prompts.append(list(prompts))
        self.lengths.append([len(ids) for ids in completion_ids])
        self.rewards.append(graded(self.task, [self.items[p] for p in position], completions))
        return self.rewards[-1]


def grpo_trainer(run: RunSpec, model: Any, tokenizer: Any, reward: Reward, scratch: str) -> GRPOTrainer:
    """Returns stock TRL's GRPO trainer for a run."""
    training, grpo = run.training, run.grpo
    assert training is not None
    assert grpo is not None
    rows = {"prompt": [written(item) for item in reward.items], "position": list(range(len(reward.items)))}
    arguments = GRPOConfig(
        num_generations=training.samples_per_prompt,
        max_completion_length=training.max_new_tokens,
        temperature=grpo.temperature,
        epsilon=grpo.epsilon,
        beta=grpo.kl_to_base_weight,
        loss_type=grpo.loss,
        scale_rewards=grpo.scale_rewards,
        shuffle_dataset=False,
        **settings(run, scratch),
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer,
        peft_config=tinylora(run),
    )


def sft_trainer(run: RunSpec, model: Any, tokenizer: Any, task: Task, items: Sequence[Item], scratch: str) -> Trainer:
    """Returns stock TRL's SFT trainer for a run, on the demonstrations that the run draws."""
    training = run.training
    assert training is not None
    rng, k = generator(run.seed, DEMONSTRATION_STREAM), training.samples_per_prompt
    rows = [(item.prompt, text) for item in items for text in task.demonstrations(item, k, rng)]
    prompts, completions = zip(*rows, strict=True)
    return SFTTrainer(
        model=model,
        args=SFTConfig(max_length=None, train_sampling_strategy="sequential", **settings(run, scratch)),
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts, "completion": completions}),
        processing_class=tokenizer,
        peft_config=tinylora(run),
    )


def schedule(run: RunSpec, task: Task) -> list[Item]:
    """Returns the prompts of all steps of a run, in order."""
    assert run.training is not None
    return prompt_schedule(task, run.seed, run.training.steps, run.training.prompts_per_step)


def step(gate: Gate, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a run, a step a turn."""
    run, model, tokenizer = opened(spec)
    task, training = open_task(run.task), run.training
    assert training is not None
    items = schedule(run, task)
    reward = Reward(task, items)
    with tempfile.TemporaryDirectory() as scratch:
        if run.method == "grpo":
            trainer: Trainer = grpo_trainer(run, model, tokenizer, reward, scratch)
        else:
            trainer = sft_trainer(run, model, tokenizer, task, items, scratch)
        with steps_in_turns(gate, training.steps) as optimiser:
            trainer.train()
    same: dict[str, Any] = {
        "trained_parameters": trained_parameters(trainer.model),
        "sequences": trainer.args.per_device_train_batch_size,
        "longest": training.max_new_tokens,
        "optimiser": optimiser,
        "clipping": trainer.args.max_grad_norm,
    }
    k = training.samples_per_prompt
    if run.method == "sft":
        lengths = [sum(label != IGNORED for label in row["labels"]) for row in trainer.train_dataset]
        tokens = [len(row["input_ids"]) for row in trainer.train_dataset]
        same |= {
            "prompt_tokens": sum(tokens) - sum(lengths),
            "prompts": [digest([written(item) for item in p]) for p in by_step(items, training.prompts_per_step)],
            "trained_tokens": sum(lengths),
            "first_loss": trainer.state.log_history[0]["loss"],
        }
        per_step = by_step(lengths, k * training.prompts_per_step)
        return {"same": same, "lengths": [sum(part) / len(part) for part in per_step], "rewards": []}
    same["prompts"] = [digest(prompts[::k]) for prompts in reward.prompts]
    same["prompt_tokens"] = trainer.state.num_input_tokens_seen - sum(map(sum, reward.lengths))
    return {
        "same": same,
        "lengths": [sum(part) / len(part) for part in reward.lengths],
        "rewards": [sum(part) / len(part) for part in reward.rewards],
    }


def rollouts(gate: Gate, spec: Mapping[str, Any], turns: int, adapter: bool) -> dict[str, Any]:
    """Samples each prompt of the run's first step as often as the step does, once a turn, by `generate`."""
    run, model, tokenizer = opened(spec)
    assert run.training is not None
    prompts, longest = first_prompts(run, tokenizer), run.training.max_new_tokens
    if adapter:
        model = get_peft_model(model, tinylora(run)).eval()
    torch.manual_seed(0)
    tokens = []
    for _ in range(turns):
        gate.wait()
        drawn = generated(model, tokenizer, prompts, longest)
        gate.done()
        tokens.append(sum(map(len, drawn)))
    return {"same": {"prompts": digest(prompts), "longest": longest}, "tokens": tokens}


@torch.no_grad()
def generated(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """Returns a completion of each prompt, sampled at T = 1 from the whole distribution, with its last token."""
    ends = end_tokens(model, tokenizer).ids
    batch = tokenizer.pad({"input_ids": [list(ids) for ids in prompts]}, padding_side="left", return_tensors="pt")
    found = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=True, temperature=1.0,
        top_k=0, top_p=1.0, max_new_tokens=longest, eos_token_id=list(ends),
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return [_ended(row, ends) for row in found[:, batch["input_ids"].shape[1] :].tolist()]


def _ended(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Returns the tokens up to the first that ends a completion, with it."""
    return ids[: next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))]


def injection(gate: Gate, spec: Mapping[str, Any], turns: int) -> dict[str, Any]:
    """Puts PEFT's TinyLoRA onto a fresh copy of the model, once a turn."""
    run, base, _ = opened(spec)
    if modules(run) < FEW_MODULES:
        get_peft_model(copy.deepcopy(base), tinylora(run))  # first calls
    for _ in repeat(None, turns):
        fresh = copy.deepcopy(base)
        gate.wait()
        model = get_peft_model(fresh, tinylora(run))
        gate.done()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("adapter_*"))
    return {"same": {"trained_parameters": trained_parameters(model)}, "bytes": size}
