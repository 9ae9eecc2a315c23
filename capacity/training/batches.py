"""What a step sees: the prompts of every step, the same for both arms of a pair, and their token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from capacity.config import RunSpec
from capacity.errors import DataError
from capacity.tasks.task import Item, Task

# Streams of randomness of one run. Each draws from its own generator, so that no arm's draws move another's.
PROMPT_STREAM, DEMONSTRATION_STREAM, ROLLOUT_STREAM = 1, 2, 3


def generator(seed: int, stream: int) -> np.random.Generator:
    """The generator of one stream of a run."""
    return np.random.default_rng([seed, stream])


def prompt_schedule(task: Task, spec: RunSpec) -> list[Item]:
    """The prompts of all steps in order, steps × prompts_per_step items.

    Depends on the seed and the sizes only, so `sft` and `grpo` of a pair see identical prompts in identical order
    (matching "prompts"). Items repeat only when the split is used up, in a new order.

    Raises:
        DataError: the split has fewer items than one step needs.
    """
    training = spec.training
    assert training is not None
    pool = task.items("train")
    if len(pool) < training.prompts_per_step:
        raise DataError(
            f"task {task.name}: the train split has {len(pool)} items, a step needs {training.prompts_per_step}"
        )
    rng = generator(spec.seed, PROMPT_STREAM)
    needed = training.steps * training.prompts_per_step
    order: list[int] = []
    while len(order) < needed:
        order.extend(int(i) for i in rng.permutation(len(pool)))
    return [pool[i] for i in order[:needed]]


def encode_prompts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """Token ids of each prompt, with whatever the tokenizer puts in front."""
    return [tokenizer.encode(item.prompt) for item in items]


def encode_completions(tokenizer: Any, completions: Sequence[str]) -> list[list[int]]:
    """Token ids of each completion, ended by the end-of-sequence token."""
    return [[*tokenizer.encode(c, add_special_tokens=False), tokenizer.eos_token_id] for c in completions]
