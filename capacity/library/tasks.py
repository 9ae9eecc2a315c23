"""A task looked into: its splits, a prompt, and its references graded by its own grader."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from capacity.errors import DataError
from capacity.tasks.catalog import DATA_SETS, open_task, parse_task
from capacity.tasks.data_sets import WordTask
from capacity.tasks.grading import answers
from capacity.tasks.reasoning import GymTask
from capacity.tasks.task import Item, Split, Task

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# The tasks in words.
ABOUT: dict[str, str] = {
    "abacus": "sums of four two-digit numbers, the embedded test bed",
    "reasoning-gym": "procedural tasks of the package reasoning-gym: reasoning-gym:chain_sum",
    **{name: data.about for name, data in DATA_SETS.items()},
}


@dataclass(frozen=True)
class TaskFacts:
    """What a task holds.

    Attributes:
        name: its name without options.
        label: its name with options.
        items: how many items each split has.
        max_new_tokens: length of the longest completion.
        has_demonstrations: whether methods that learn from demonstrations can run on it.
        prompt, answer: those of the first item, if there is one.
        demonstration: of the first item of the train split, if there is one.
        graded: which references and demonstrations its own grader finds wrong, by split, if asked for.
    """

    name: str
    label: str
    items: dict[str, int]
    max_new_tokens: int
    has_demonstrations: bool
    prompt: str | None
    answer: str | None
    demonstration: str | None
    graded: dict[str, dict[str, Any]] | None

    def check(self) -> None:
        """Checks that the task's own grader found no reference and no demonstration wrong.

        Raises:
            DataError: it found some, or it was not asked.
        """
        if self.graded is None:
            raise DataError(f"task {self.name}: its references were not graded")
        faults = [
            f"{split}: {len(ids):,} {what} graded wrong, such as {ids[0]}"
            for split, counts in self.graded.items()
            for what, ids in (
                ("references", counts.get("references_wrong")),
                ("demonstrations", counts.get("demonstrations_wrong")),
            )
            if ids
        ]
        if faults:
            raise DataError(f"task {self.name}: {'; '.join(faults)}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        found = {
            "task": self.name,
            "options": self.label,
            "splits": self.items,
            "max_new_tokens": self.max_new_tokens,
            "has_demonstrations": self.has_demonstrations,
            "prompt": self.prompt,
            "answer": self.answer,
            "demonstration": self.demonstration,
        }
        return found if self.graded is None else {**found, "graded": self.graded}


def task_facts(name: str, *, grade: bool = False) -> TaskFacts:
    """Looks into a task; `grade` grades all its references and demonstrations by its own grader.

    Raises:
        SpecError: no such task, or an option that it does not have.
        DataError: its data cannot be read.
    """
    spec = parse_task(name)
    task = open_task(spec)
    splits = {split: _items(task, split) for split in _SPLITS}
    first = next((items[0] for items in splits.values() if items), None)
    return TaskFacts(
        spec.name,
        spec.label,
        {split: len(items) for split, items in splits.items()},
        task.max_new_tokens,
        task.has_demonstrations,
        first.prompt if first else None,
        first.answer if first else None,
        _demonstration(task, splits["train"]),
        {split: _graded(task, items) for split, items in splits.items() if items} if grade else None,
    )


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
        stated = [item for item in items if item.answer]  # some problems of reasoning-gym have no reference
        wrong = [i.id for i in stated if not task.grade_strict(i, answers.shown(i.answer, form))]
        counts = {"references": len(stated), "references_wrong": wrong}
    if task.has_demonstrations:
        rng = np.random.default_rng(0)
        try:
            shown = [(item, task.demonstrations(item, 1, rng)[0]) for item in items]
        except DataError as error:
            return {**counts, "demonstrations": str(error)}
        counts["demonstrations_wrong"] = [item.id for item, text in shown if not task.grade(item, text)]
    return counts
