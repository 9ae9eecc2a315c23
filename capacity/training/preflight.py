"""Checks, before anything is trained, that a model can be asked every prompt of a run. No weights are loaded."""

from collections.abc import Iterable, Iterator
from typing import Any

from capacity.models.loading import load_tokenizer, model_folder
from capacity.plan.models import model_shape
from capacity.sampling.prompts import check_room, prompt_ids
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Item, Task
from capacity.training.batches import HELDOUT_ITEMS, prompt_schedule


def check_runs(specs: Iterable[RunSpec]) -> None:
    """Checks the prompts of several runs. Each model's tokenizer is loaded once, and each prompt is encoded once.

    Raises:
        CapacityError: as `check_run`, or if a model or its tokenizer is not there.
    """
    tokenizers: dict[str, Any] = {}
    lengths: dict[tuple[str, str], dict[str, int]] = {}
    for spec in specs:
        if spec.model not in tokenizers:
            tokenizers[spec.model] = load_tokenizer(model_folder(spec.model))
        known = lengths.setdefault((spec.model, spec.task.problems), {})
        check_run(spec, open_task(spec.task), tokenizers[spec.model], known)


def check_run(spec: RunSpec, task: Task, tokenizer: Any, known: dict[str, int] | None = None) -> None:
    """Checks that every prompt of a run can be encoded, and fits the model's context together with its completion.

    Args:
        spec: the spec of the run.
        task: its task.
        tokenizer: the tokenizer of its model.
        known: the lengths in tokens of prompts by the names of their items. Those of further items are added.

    Raises:
        SpecError: if a prompt does not fit, or the tokenizer or its chat template has a fault.
        DataError: if the task has too few items.
    """
    context = model_shape(spec.model)[1].context
    known = {} if known is None else known
    for items, new_tokens in asked(spec, task):
        for item in items:
            if item.id not in known:
                known[item.id] = len(prompt_ids(tokenizer, item))
        check_room(context, {item.id: known[item.id] for item in items}, new_tokens)


def asked(spec: RunSpec, task: Task) -> Iterator[tuple[list[Item], int]]:
    """Yields the items whose prompts a run uses, with the largest number of tokens of their completions."""
    yield list(task.items(spec.evaluation.split, spec.evaluation.items)), spec.evaluation.max_new_tokens
    training = spec.training
    if training is None:
        return
    per_step = training.prompts_per_step
    yield prompt_schedule(task, spec.seed, drawn_prompts(spec) // per_step, per_step), training.max_new_tokens
    if spec.method in ("sft", "rft"):
        yield list(task.items("validation")[:HELDOUT_ITEMS]), training.max_new_tokens


def drawn_prompts(spec: RunSpec) -> int:
    """Returns the number of prompts that the steps of a run draw from the train split."""
    training = spec.training
    assert training is not None
    supervised = {"sft": training.steps, "sft+grpo": training.steps // 2}.get(spec.method, 0)
    each = training.samples_per_prompt if training.match == "sequences" else 1
    return (supervised * each + training.steps - supervised) * training.prompts_per_step
