"""What evaluations have in common: a task under a protocol, and answers with their intervals."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from capacity.errors import SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.runs.points import protocol_name
from capacity.spec.parts import EvaluationSpec, TaskSpec
from capacity.studies.device import check_libraries
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.task import Task
from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, difference_estimate
from capacity_analysis.types import Array

if TYPE_CHECKING:
    from capacity.sampling.evaluate import Evaluation

Grade = Literal["correct", "strict", "lenient"]


@dataclass(frozen=True)
class Asked:
    """What is evaluated on: a task under a protocol."""

    named: TaskSpec
    task: Task
    protocol: EvaluationSpec

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "task": self.named.name,
            "task_options": self.named.label,
            "split": self.protocol.split,
            "protocol": protocol_name(self.protocol),
        }


def ask(task: str, split: str, items: int | None, samples: int, temperature: float | None, seed: int) -> Asked:
    """The task and the protocol of an evaluation.

    Args:
        task: its name with options.
        split: "test" or "validation".
        items: how many; those of the task's protocol if None.
        samples: completions of each item.
        temperature: of the sampling, 0 is greedy; that of the task's protocol if None.
        seed: of the sampling.

    Raises:
        SpecError: an option out of range.
    """
    if split not in ("test", "validation"):
        raise SpecError(f"--split {split!r}: choose test or validation")
    if temperature is not None and not math.isfinite(temperature):
        raise SpecError(f"--temperature {temperature}: give a finite number, 0 or above")
    if seed >= 2**63:
        raise SpecError(f"--seed {seed}: give a number below 2^63")
    named = parse_task(task)
    problem = open_task(named)
    default = PROTOCOLS[named.name].evaluation(problem, validation=split == "validation", temperature=temperature)
    protocol = EvaluationSpec(
        split=default.split,
        items=default.items if items is None else items,
        samples_per_item=samples,
        temperature=default.temperature,
        max_new_tokens=default.max_new_tokens,
        seed=seed,
    )
    return Asked(named, problem, protocol)


@dataclass(frozen=True)
class Measured:
    """An evaluation with its intervals."""

    evaluation: "Evaluation"

    @cached_property
    def accuracy(self) -> Estimate:
        """The share of correct samples."""
        return accuracy_estimate(self.shares("correct"))

    def shares(self, grade: Grade) -> Array:
        """One row: the share of correct samples of each item."""
        return np.array([[float(np.mean(getattr(outcome, grade))) for outcome in self.evaluation.outcomes]])

    def gain_over(self, other: "Measured") -> Estimate:
        """The difference of accuracy to another evaluation of the same items, paired by item."""
        return difference_estimate(self.shares("correct"), other.shares("correct"))

    def graded(self, grade: Grade) -> dict[str, Any] | None:
        """Accuracy by one way of grading, with its interval; None for tasks that are graded in one way."""
        right = {"strict": self.evaluation.n_strict, "lenient": self.evaluation.n_lenient}[grade]
        if right is None:
            return None
        found = accuracy_estimate(self.shares(grade))
        return {"n_correct": right, "accuracy": found.value, "low": found.low, "high": found.high}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the outcomes of every item."""
        found, accuracy = self.evaluation, self.accuracy
        return {
            "n_items": found.n_items,
            "samples_per_item": found.samples_per_item,
            "n_correct": found.n_correct,
            "accuracy": found.accuracy,
            "low": accuracy.low,
            "high": accuracy.high,
            "interval": accuracy.label,
            "strict": self.graded("strict"),
            "lenient": self.graded("lenient"),
            "pass_at_k": found.pass_at_k,
            "n_unfinished": found.n_unfinished,
            "end_tokens": list(found.end_tokens),
            "system_folded": found.system_folded,
            "outcomes": [outcome.model_dump(mode="json") for outcome in found.outcomes],
        }


def prepare() -> None:
    """Checks that the libraries are there, and keeps them quiet."""
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
