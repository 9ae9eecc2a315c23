"""Checks, before anything is trained, that a model can be asked every prompt of a run. No weights are loaded."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from capacity.errors import CapacityError, DataError, DataWarning, SpecError, raise_together
from capacity.models.loading import load_tokenizer, model_folder
from capacity.plan.engine_memory import LONGEST_PROMPT
from capacity.plan.models import model_shape
from capacity.plan.sampling import SERVER
from capacity.sampling.prompts import check_room, prompt_ids
from capacity.sampling.spelling import check_spelling
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Item, Task, Written
from capacity.training.batches import heldout_items, prompt_schedule

FEW_ITEMS = 97  # with fewer, the 95 % interval of an accuracy of 50 % is wider than ±10 points
SHOWN = 32  # items whose demonstrations are spelt out
# Lengths in tokens of prompts, and of the longest demonstration of a style with its end, by the names of their items.
Lengths = dict[tuple[str, str], int]
_PROMPT = "prompt"


def check_runs(specs: Iterable[RunSpec]) -> None:
    """Checks the prompts of several runs. Each model's tokenizer is loaded once, and each prompt is encoded once.

    A warning says which test splits have so few items that an accuracy is hardly known.

    Raises:
        CapacityError: as `check_run`, or if a model or its tokenizer is not there. Its text has a line for each model
            and task with an obstacle, whatever the number of runs.
    """
    tokenizers: dict[str, Any] = {}
    lengths: dict[tuple[str, str], Lengths] = {}
    few: dict[str, tuple[int, Task]] = {}
    obstacles: dict[tuple[str, str], CapacityError] = {}
    for spec in specs:
        place = (spec.model, spec.task.problems)
        if place in obstacles:
            continue
        try:
            if spec.model not in tokenizers:
                tokenizers[spec.model] = load_tokenizer(model_folder(spec.model))
            task = open_task(spec.task)
            check_run(spec, task, tokenizers[spec.model], lengths.setdefault(place, {}))
        except CapacityError as error:
            obstacles[place] = error
            continue
        if spec.evaluation.split == "test":
            few[spec.task.problems] = (spec.evaluation.items, task)
    for count, task in few.values():
        _warn_of_few_items(count, task)
    raise_together(list(obstacles.values()))


def _warn_of_few_items(count: int, task: Task) -> None:
    """Says how little a test split says, unless the protocol asks for no more of it on purpose."""
    if count >= FEW_ITEMS or len(task.items("test")) > count:
        return
    width = 100 * interval_width(count)
    warnings.warn(
        f"task {task.name} has {count} test items: a run's accuracy near 50 % is known to ±{width:.0f} points (95 %); "
        f"{FEW_ITEMS} items are needed for ±10 points",
        DataWarning,
        stacklevel=2,
    )


def interval_width(items: int) -> float:
    """Half the 95 % interval of an accuracy of 50 % on so many items, as a share of 1."""
    return 1.96 * math.sqrt(0.25 / items)


def check_run(spec: RunSpec, task: Task, tokenizer: Any, known: Lengths | None = None) -> None:
    """Checks that every prompt of a run is spelt by the tokenizer, and fits the model's context with its completion.

    Every demonstration that was written beforehand must fit the completion, and every prompt of an engine its room.

    Args:
        spec: the spec of the run.
        task: its task.
        tokenizer: the tokenizer of its model.
        known: lengths that were found already. Those of further items are added.

    Raises:
        SpecError: if a prompt does not fit, if the tokenizer loses characters of the task, or if it or its chat
            template has a fault.
        DataError: if the task has too few items, or a demonstration is missing or too long.
    """
    context = model_shape(spec.model)[1].context
    known = {} if known is None else known
    for items, new_tokens in asked(spec, task):
        fresh = [item for item in items if (_PROMPT, item.id) not in known]
        check_spelling(tokenizer, fresh, spec.model)
        known.update({(_PROMPT, item.id): len(prompt_ids(tokenizer, item)) for item in fresh})
        prompts = {item.id: known[_PROMPT, item.id] for item in items}
        check_room(context, prompts, new_tokens)
        if spec.rollouts is not None and SERVER not in os.environ:  # a server has the room that it was started with
            _check_engine_room(prompts)
    if spec.training is not None and METHODS[spec.method].sees_demonstrations:
        rng = np.random.default_rng(0)  # its own: the streams of the run stay as they are
        shown = (task.demonstrations(item, 1, rng)[0] for item in task.items("train")[:SHOWN])
        check_spelling(tokenizer, (), spec.model, shown)
        _check_demonstrations(spec, task, tokenizer, known)


def _check_engine_room(prompts: Mapping[str, int]) -> None:
    """Checks that an engine takes the prompts whole and has room for their completions.

    Raises:
        SpecError: if it does not.
    """
    name = max(prompts, key=lambda name: prompts[name])
    if prompts[name] > LONGEST_PROMPT:
        raise SpecError(
            f"item {name}: its prompt has {prompts[name]:,} tokens, and the engine is started for {LONGEST_PROMPT:,}: "
            "sample with --rollouts transformers"
        )


def _check_demonstrations(spec: RunSpec, task: Task, tokenizer: Any, known: Lengths) -> None:
    """Checks the demonstrations that a run trains on, and those of held-out items, before anything is trained.

    Raises:
        DataError: if a trained item has none, or one is longer than a completion may be.
    """
    training = spec.training
    if training is None or not isinstance(task, Written):
        return
    supervised, each = _supervised(spec)
    items = prompt_schedule(task, spec.seed, supervised * each, training.prompts_per_step)
    if spec.method == "sft":
        items += heldout_items(task, demonstrated=True)
    for item in items:
        key = (spec.task.demonstrations, item.id)
        if key not in known:
            texts = task.different_demonstrations(item)
            known[key] = 1 + max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        if known[key] > training.max_new_tokens:
            raise DataError(
                f"task {task.name}: a demonstration of item {item.id} has {known[key]:,} tokens with its end, and "
                f"completions have at most {training.max_new_tokens:,}: raise max_new_tokens, or leave the row out"
            )


def asked(spec: RunSpec, task: Task) -> Iterator[tuple[list[Item], int]]:
    """Yields the items whose prompts a run uses, with the largest number of tokens of their completions."""
    yield list(task.items(spec.evaluation.split, spec.evaluation.items)), spec.evaluation.max_new_tokens
    training = spec.training
    if training is None:
        return
    per_step = training.prompts_per_step
    yield prompt_schedule(task, spec.seed, drawn_prompts(spec) // per_step, per_step), training.max_new_tokens
    if spec.method in ("sft", "rft"):
        yield heldout_items(task, demonstrated=spec.method == "sft"), training.max_new_tokens


def drawn_prompts(spec: RunSpec) -> int:
    """Returns the number of prompts that the steps of a run draw from the train split."""
    training = spec.training
    assert training is not None
    supervised, each = _supervised(spec)
    return (supervised * each + training.steps - supervised) * training.prompts_per_step


def _supervised(spec: RunSpec) -> tuple[int, int]:
    """How many steps of a run show demonstrations, and how many times each draws the prompts of a step."""
    training = spec.training
    assert training is not None
    steps = {"sft": training.steps, "sft+grpo": training.steps // 2}.get(spec.method, 0)
    return steps, training.samples_per_prompt if training.match == "sequences" else 1
