"""`capacity tasks`: the tasks by name, and one of them looked into: its splits, a prompt, its references graded."""

import json
from typing import Any

import numpy as np
from rich.console import Console

from capacity.errors import DataError
from capacity.tasks.catalog import DATA_SETS, open_task, parse_task
from capacity.tasks.data_sets import WordTask
from capacity.tasks.grading import answers
from capacity.tasks.reasoning import GymTask
from capacity.tasks.task import Item, Split, Task
from capacity.tasks.templates import TEMPLATES
from capacity_reports.tables import rows_table

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def tasks_command(name: str | None, *, grade: bool, as_json: bool) -> None:
    """Lists the tasks, or looks into one; `grade` grades all its references and demonstrations by its own grader."""
    if name is None:
        _list(as_json=as_json)
        return
    spec = parse_task(name)
    task = open_task(spec)
    splits = {split: _items(task, split) for split in _SPLITS}
    first = next((items[0] for items in splits.values() if items), None)
    result: dict[str, Any] = {
        "task": spec.name,
        "options": spec.label,
        "splits": {split: len(items) for split, items in splits.items()},
        "max_new_tokens": task.max_new_tokens,
        "has_demonstrations": task.has_demonstrations,
        "prompt": first.prompt if first else None,
        "answer": first.answer if first else None,
        "demonstration": _demonstration(task, splits["train"]),
    }
    if grade:
        result["graded"] = {split: _graded(task, items) for split, items in splits.items() if items}
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for key, value in result.items():
        if value is not None and value != {}:
            print(f"{key.replace('_', ' ')}: {value}")


def _items(task: Task, split: Split) -> list[Item]:
    """All items of a split; none if the task has no such split."""
    if isinstance(task, WordTask) and not task.load().get(split):
        return []
    return list(task.items(split))


def _demonstration(task: Task, train: list[Item]) -> str | None:
    if not train or not task.has_demonstrations:
        return None
    return task.demonstrations(train[0], 1, np.random.default_rng(0))[0]


def _graded(task: Task, items: list[Item]) -> dict[str, Any]:
    """How many references, stated as the template asks, the task's own grader finds right, and the others by id."""
    counts: dict[str, Any] = {}
    if isinstance(task, WordTask | GymTask):
        form = task.template.form
        wrong = [i.id for i in items if not task.grade_strict(i, answers.shown(i.answer, form))]
        counts = {"references": len(items), "references_wrong": wrong}
    if task.has_demonstrations:
        rng = np.random.default_rng(0)
        try:
            shown = [(item, task.demonstrations(item, 1, rng)[0]) for item in items]
        except DataError as error:
            return {**counts, "demonstrations": str(error)}
        counts["demonstrations_wrong"] = [item.id for item, text in shown if not task.grade(item, text)]
    return counts


def _list(*, as_json: bool) -> None:
    own = {
        "abacus": "sums of four two-digit numbers, the embedded test bed",
        "reasoning-gym": "procedural tasks of the package reasoning-gym: reasoning-gym:chain_sum",
    }
    about = {**own, **{name: data.about for name, data in DATA_SETS.items()}}
    if as_json:
        templates = {name: {"user": t.user, "system": t.system, "form": t.form} for name, t in TEMPLATES.items()}
        print(json.dumps({"tasks": about, "templates": templates}, indent=1))
        return
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=160)
    console.print(rows_table(("task", "what"), list(about.items())), highlight=False)
    print(f"Templates: {', '.join(TEMPLATES)}. Options: docs/tasks.md.")
