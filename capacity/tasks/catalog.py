"""The catalogue lists the tasks by name. A text `NAME?option=value&…` names a task with its options."""

from collections.abc import Callable, Mapping
from functools import partial

from capacity.errors import SpecError, unknown
from capacity.spec.parts import TaskSpec
from capacity.tasks import abacus, data_sets, jsonl, reasoning
from capacity.tasks.gsm8k import GSM8K
from capacity.tasks.mathematics import MATHEMATICS
from capacity.tasks.task import Split, Task

# The tasks whose problems are rows of a data set.
DATA_SETS: Mapping[str, data_sets.DataSet] = {"gsm8k": GSM8K, **MATHEMATICS, "jsonl": jsonl.JSONL}
# Name → what opens a task of that name, and what reads its options.
OPEN: dict[str, Callable[[TaskSpec], Task]] = {
    "abacus": abacus.open_abacus,
    "reasoning-gym": reasoning.open_gym,
    **{name: partial(data_sets.open_words, data) for name, data in DATA_SETS.items()},
}
PARSE: dict[str, Callable[[dict[str, str]], TaskSpec]] = {
    "abacus": abacus.parse_abacus,
    "reasoning-gym": reasoning.parse_gym,
    **{name: partial(data_sets.parse_words, data) for name, data in DATA_SETS.items()},
    "jsonl": jsonl.parse_jsonl,
}
# What stands behind the colon of `jsonl:PATH` and `reasoning-gym:NAME` is this option.
_BEHIND_COLON = {"jsonl": "path", "reasoning-gym": "task"}


def open_task(spec: TaskSpec) -> Task:
    """Opens the task of a spec.

    Raises:
        SpecError: if there is no such task, or the spec has options that the task does not have.
    """
    if spec.name not in OPEN:
        raise unknown("task", spec.name, OPEN)
    return OPEN[spec.name](spec)


def count_items(spec: TaskSpec, split: Split) -> int:
    """Returns the number of items in a split of a task.

    Raises:
        SpecError: if there is no such task, or the spec has options that the task does not have.
        DataError: if the data of the task is not available, or has no such split.
    """
    return len(open_task(spec).items(split))


def parse_task(text: str) -> TaskSpec:
    """Reads `abacus`, `gsm8k?template=boxed&path=FOLDER`, `jsonl:PATH` or `reasoning-gym:chain_sum?max_terms=3`.

    Options that are not named get their defaults. Files that a task is read from are checked.

    Raises:
        SpecError: if a task or option is unknown, an option is given twice, or a value is out of range.
        DataError: if a file is missing, or does not have the schema of the task.
    """
    name, _, query = text.partition("?")
    name, colon, argument = name.partition(":")
    if name not in PARSE:
        raise unknown("task", name, PARSE)
    options: dict[str, str] = {}
    if colon:
        if name not in _BEHIND_COLON:
            raise SpecError(f"task {text!r}: {name} takes no name behind a colon")
        options[_BEHIND_COLON[name]] = argument
    for option in filter(None, query.split("&")):
        key, equals, value = option.partition("=")
        if not equals or key in options:
            raise SpecError(f"task {text!r}: {option!r} is {'given twice' if equals else 'not of the form name=value'}")
        options[key] = value
    return PARSE[name](options)
