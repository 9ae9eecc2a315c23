"""Lists the arms of a run in the order in which they train. `sft+grpo` has two, other methods have one."""

from collections.abc import Iterator
from typing import Any

from capacity.adapters.model import AdaptedModel
from capacity.sampling.sampler import Sampler
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Task
from capacity.training.arm import Arm
from capacity.training.base_lengths import BaseLengths
from capacity.training.batch import Recorder
from capacity.training.batches import prompt_schedule
from capacity.training.grpo import GrpoArm, RandomRewardArm
from capacity.training.rft import RftArm
from capacity.training.sft import SftArm

ARMS: dict[str, type[Arm]] = {
    "sft": SftArm,
    "rft": RftArm,
    "rft-online": RftArm,
    "grpo": GrpoArm,
    "random-reward": RandomRewardArm,
}


def phases(
    adapted: AdaptedModel,
    tokenizer: Any,
    task: Task,
    spec: RunSpec,
    recorder: Recorder,
    sampler: Sampler | None = None,
    base_lengths: BaseLengths | None = None,
) -> Iterator[tuple[Arm, list[Item]]]:
    """Yields each arm of a run with the prompts of its steps. An arm is made after the one before it has trained.

    `sft+grpo` gives the first half of its steps to sft and the rest to grpo. The prompts are divided in the same order.
    Each half has its own decay and a warm-up of half the length.
    """
    training = spec.training
    assert training is not None
    if spec.method != "sft+grpo":
        arm = ARMS[spec.method](adapted, tokenizer, task, spec, training, recorder, sampler, base_lengths)
        yield arm, prompt_schedule(task, spec.seed, training.steps, arm.prompts_per_step)
        return
    assert spec.warm_start is not None
    first, warmup = training.steps // 2, training.warmup_steps // 2
    parts = {"sft": (first, spec.warm_start.learning_rate), "grpo": (training.steps - first, training.learning_rate)}
    schedule: list[Item] = []
    for name, (steps, rate) in parts.items():
        changed = {"steps": steps, "learning_rate": rate, "warmup_steps": warmup}
        own = training.model_copy(update=changed)
        arm = ARMS[name](adapted, tokenizer, task, spec, own, recorder, sampler, base_lengths)
        arm.phase = name
        used = len(schedule)
        schedule = prompt_schedule(task, spec.seed, used // arm.prompts_per_step + steps, arm.prompts_per_step)
        yield arm, schedule[used:]
