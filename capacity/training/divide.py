"""Divides the work of an arm over the processes that make a run together, if there are several."""

import os

from capacity.errors import TrainingError
from capacity.training.arm import Arm
from capacity.training.processes import DividedSampler, Processes


def divide(arm: Arm) -> Processes:
    """Lets an arm sample its own share of each step, and returns the processes.

    Raises:
        TrainingError: if the started processes cannot make this run together.
    """
    processes = Processes.current()
    _check_processes(arm, processes)
    if processes.count > 1:
        arm.sampler = DividedSampler(arm.sampler, arm.tokenizer.pad_token_id, arm.device, processes)
    return processes


def _check_processes(arm: Arm, processes: Processes) -> None:
    """Checks that the started processes can make this run together.

    Raises:
        TrainingError: if they cannot. The message says what to do.
    """
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
