"""Draws the prompts of every step, which are the same for both methods of a pair, and their token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from capacity.errors import DataError
from capacity.models.ends import EndTokens
from capacity.sampling.prompts import prompt_ids
from capacity.tasks.task import Item, Task, Written

HELDOUT_ITEMS = 256  # validation items whose code length is measured after training
# Streams of randomness of one run. Each draws from its own generator, so that no arm's draws move another's.
PROMPT_STREAM, DEMONSTRATION_STREAM, ROLLOUT_STREAM, PERMUTATION_STREAM, HELDOUT_STREAM = 1, 2, 3, 4, 5


def generator(seed: int, stream: int) -> np.random.Generator:
    """Returns the random generator of one stream of a run."""
    return np.random.default_rng([seed, stream])


def prompt_schedule(task: Task, seed: int, steps: int, prompts_per_step: int) -> list[Item]:
    """Returns the prompts of all steps in order, steps × prompts_per_step items.

    They depend on the seed and the sizes only. So all methods see identical prompts in identical order, if they match
    by "prompts". Items repeat only when the split is used up, in a new order.

    Raises:
        DataError: if the split has fewer items than one step needs.
    """
    pool = task.items("train")
    if len(pool) < prompts_per_step:
        raise DataError(
            f"task {task.name}: its train split is too small: {len(pool)} items, a step needs {prompts_per_step}"
        )
    rng = generator(seed, PROMPT_STREAM)
    needed = steps * prompts_per_step
    order: list[int] = []
    while len(order) < needed:
        order.extend(int(i) for i in rng.permutation(len(pool)))
    return [pool[i] for i in order[:needed]]


def heldout_items(task: Task, *, demonstrated: bool) -> list[Item]:
    """Returns the validation items whose code length is measured after training.

    Args:
        task: the task.
        demonstrated: True for those alone that have a demonstration.
    """
    items = list(task.items("validation")[:HELDOUT_ITEMS])
    if not demonstrated or not isinstance(task, Written):
        return items
    return [item for item in items if task.is_demonstrated(item)]


def encode_prompts(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """Returns the token ids of each prompt, including those that the tokenizer puts before it."""
    return [prompt_ids(tokenizer, item) for item in items]


def encode_completions(tokenizer: Any, completions: Sequence[str], ends: EndTokens, item: Item) -> list[list[int]]:
    """Returns the token ids of each completion, with the token that ends it.

    Args:
        tokenizer: the tokenizer of the model.
        completions: texts.
        ends: the end tokens of the model.
        item: an item that they answer; whether its prompt is in the chat format decides how they end.

    Raises:
        DataError: if a completion holds an end token itself. It would teach a model to stop there.
    """
    encoded = [tokenizer.encode(c, add_special_tokens=False) for c in completions]
    for text, ids in zip(completions, encoded, strict=True):
        inside = next((token for token in ids if token in ends.ids), None)
        if inside is not None:
            raise DataError(
                f"a demonstration holds {tokenizer.decode([inside])!r}, which ends a sequence: "
                f"take it out of {text[:60]!r}"
            )
    return [[*ids, ends.after(item)] for ids in encoded]
