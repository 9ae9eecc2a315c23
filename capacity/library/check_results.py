"""Results of other programs against a baseline of the same kind, for CI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.library.shown import Shown
from capacity.library.verdict import reading_of
from capacity_analysis.check.judge import check_levels
from capacity_analysis.evaluations.evaluation import Evaluation, Reading
from capacity_analysis.evaluations.read import read_evaluations
from capacity_analysis.verdict.arms import by_task
from capacity_analysis.verdict.guard import ResultsCheck
from capacity_analysis.verdict.guard import check_results as judge_results
from capacity_reports.blocks import Block
from capacity_reports.sections.results_check import results_check_blocks


@dataclass(frozen=True, repr=False)
class CheckedResults(Shown):
    """Results that were compared with their baseline.

    Attributes:
        found: `found.outcome` is "identical", "non-inferior", "worse" or "inconclusive".
    """

    found: ResultsCheck

    @property
    def line(self) -> str:
        """The verdict."""
        return self.found.verdict

    @property
    def blocks(self) -> Sequence[Block]:
        """A table of the tasks, and the verdict."""
        return results_check_blocks(self.found)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; shares of 1 throughout."""
        return self.found.to_json()


def check_results(
    candidate: Path,
    baseline: Path,
    *,
    margin: float,
    alpha: float,
    metric: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> CheckedResults:
    """Compares results with a baseline of the same kind.

    Args:
        candidate, baseline: sources of answers, as of `capacity.verdict`.
        margin: the largest tolerated drop of the accuracy of a task, as a share of 1.
        alpha: one-sided error of each claim.
        metric: which of several grades to take.
        columns: of a table, the names of its columns by what they mean: {"item": "question_id"}.

    Raises:
        SpecError: numbers that make no sense, or something has to be chosen.
        DataError: a source that is not whole, has several arms, or has answers that cannot be paired. Or the candidate
            lacks a task or a seed of the baseline.
    """
    check_levels(margin, alpha)
    reading = reading_of(metric, columns)
    before, after = _one_arm(baseline, "baseline", reading), _one_arm(candidate, "candidate", reading)
    _check_whole(before, after, candidate)
    return CheckedResults(judge_results(by_task([*before, *after]), margin, alpha))


def _check_whole(before: Sequence[Evaluation], after: Sequence[Evaluation], candidate: Path) -> None:
    """Checks that a candidate has every task and every seed of its baseline: those that lack may have gone wrong.

    Raises:
        DataError: if it does not.
    """
    for task in dict.fromkeys(evaluation.task for evaluation in before):
        own = [evaluation for evaluation in after if evaluation.task == task]
        if not own:
            raise DataError(f"{candidate}: lacks the task {task}, which the baseline has: evaluate it, too")
        known = {evaluation.seed for evaluation in own} - {None}
        wanted = {e.seed for e in before if e.task == task and e.seed is not None}
        missing = sorted(seed for seed in wanted - known if seed is not None) if known else []
        if missing:
            of = f" of {task}" if task else ""
            raise DataError(
                f"{candidate}: lacks the seeds {', '.join(map(str, missing))}{of}, which the baseline has: evaluate "
                "them, too"
            )


def _one_arm(path: Path, role: str, reading: Reading) -> list[Evaluation]:
    """The evaluations of a source under the name of its role, whatever it calls its arm."""
    found = read_evaluations(path, None, reading)
    arms = list(dict.fromkeys(evaluation.arm for evaluation in found))
    if len(arms) > 1:
        raise DataError(f"{path}: has the arms {', '.join(arms)}: a {role} has one, so give a table of that one")
    return [replace(evaluation, arm=role) for evaluation in found]
