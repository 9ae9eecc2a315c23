"""Results of other programs as baseline and candidate: identical, non-inferior, worse or inconclusive, task by task.

A task is worse if its accuracy fell at alpha over the number of tasks and by more than the margin (Bonferroni). It is
non-inferior if a drop of the margin or more is excluded at alpha. The candidate is worse if one task is, and
non-inferior only if every task is (the intersection–union test needs no correction; Berger, Technometrics 1982).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capacity_analysis.check.result import CheckOutcome
from capacity_analysis.verdict.arms import TaskArms
from capacity_analysis.verdict.contrast import Contrast, contrast
from capacity_analysis.words import minus


@dataclass(frozen=True)
class TaskCheck:
    """One task against its baseline. `contrast` has the interval whose ends err with probability alpha each."""

    contrast: Contrast
    outcome: CheckOutcome
    reason: str


@dataclass(frozen=True)
class ResultsCheck:
    """A candidate against its baseline.

    Attributes:
        outcome: of all tasks together.
        tasks: one by one.
        margin: the largest tolerated drop, a share of 1.
        alpha: one-sided error of each claim.
    """

    outcome: CheckOutcome
    tasks: tuple[TaskCheck, ...]
    margin: float
    alpha: float

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        parts = [f"{t.contrast.task or 'accuracy'} {_points(t, self.alpha)}: {t.reason}" for t in self.tasks]
        return f"{self.outcome.capitalize()} (margin {100 * self.margin:g} points): {'; '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; shares of 1 throughout."""
        rows = []
        for task in self.tasks:
            row = asdict(task.contrast)
            estimate = row.pop("estimate")
            ends = {name: estimate[name] for name in ("value", "low", "high", "seeds")}
            kept = {name: row[name] for name in ("task", "before", "after", "lost", "gained", "clusters", "pairing")}
            rows.append({**kept, **ends, "outcome": task.outcome, "reason": task.reason})
        return {
            "outcome": self.outcome,
            "verdict": self.verdict,
            "margin": self.margin,
            "alpha": self.alpha,
            "tasks": rows,
        }


def check_results(tasks: Sequence[TaskArms], margin: float, alpha: float) -> ResultsCheck:
    """Compares the second arm of each task with the first.

    Args:
        tasks: of two arms each: the baseline and the candidate.
        margin: the largest tolerated drop, as a share of 1.
        alpha: one-sided error of each claim.
    """
    checks = tuple(_task(task, margin, alpha, alpha / len(tasks)) for task in tasks)
    found = [check.outcome for check in checks]
    order: tuple[CheckOutcome, ...] = ("worse", "inconclusive", "non-inferior", "identical")
    return ResultsCheck(next(outcome for outcome in order if outcome in found), checks, margin, alpha)


def _task(task: TaskArms, margin: float, alpha: float, level: float) -> TaskCheck:
    first, second = task.arms
    found = contrast(task, first, second, alpha=2 * alpha, margin=None)
    if first.seeds == second.seeds and np.array_equal(first.scores, second.scores):
        return TaskCheck(found, "identical", "every item has the same score")
    p_worse = found.p / 2 if found.estimate.value < 0 else 1 - found.p / 2
    if p_worse <= level and found.estimate.value < -margin:
        return TaskCheck(found, "worse", f"it fell by more than the margin (p = {p_worse:.2g}, level {level:.2g})")
    if found.estimate.low is not None and found.estimate.low > -margin:
        return TaskCheck(found, "non-inferior", "a drop of the margin or more is excluded")
    return TaskCheck(found, "inconclusive", "a drop beyond the margin is neither shown nor excluded")


def _points(task: TaskCheck, alpha: float) -> str:
    estimate = task.contrast.estimate
    if task.outcome == "identical" or estimate.low is None or estimate.high is None:
        return task.outcome
    change, low, high = (minus(f"{100 * end:+.1f}") for end in (estimate.value, estimate.low, estimate.high))
    return f"{task.outcome}, {change} points ({100 * (1 - 2 * alpha):g} % interval {low} to {high})"
