"""A check from its inputs to its result: a study, a baseline, and the history of earlier checks if there is one."""

from dataclasses import replace
from pathlib import Path

from capacity.errors import SpecError
from capacity.runs.study import Study
from capacity_analysis.check.alarms import AlarmBudget, Entry, History, Level
from capacity_analysis.check.baseline import Baseline
from capacity_analysis.check.judge import check_levels, check_study, evidence_digest, same_answers
from capacity_analysis.check.result import Check
from capacity_analysis.check.snapshot import snapshot

MARGIN, ALPHA, ALARMS_PER_100 = 0.02, 0.05, 0.5
_LEAST_ALARMS = 1e-4  # of 100 checks


def guard(
    study: Study,
    baseline: Baseline,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    history: Path | None = None,
    alarms_per_100: float = ALARMS_PER_100,
) -> Check:
    """Compares a study with its baseline, at the level that the history allows, and records the check there.

    Args:
        study: the study folder.
        baseline: of `capacity_analysis.check.baseline.read_baseline`.
        margin: the largest tolerated drop of the mean accuracy over sizes, as a share of 1.
        alpha: one-sided error of each claim.
        history: the file that remembers checks and limits false alarms; made if it does not exist.
        alarms_per_100: false alarms in 100 checks of an unchanged project, on average at most; needs a history.

    Raises:
        SpecError: numbers that make no sense.
        DataError: the study cannot be compared with the baseline, or the history cannot be used.
    """
    check_options(margin, alpha, history, alarms_per_100)
    new = snapshot(study)
    if history is None:
        return check_study(new, baseline, margin=margin, alpha=alpha)
    evidence = evidence_digest(new, baseline, margin, alpha)
    budget = AlarmBudget(alpha, alarms_per_100 / 100)
    file = History(history)
    with file.held() as past:
        level = budget.next_level(past, evidence)
        check = check_study(new, baseline, margin=margin, alpha=alpha, level=level.level)
        spends = not (level.repeated or same_answers(new, baseline))
        file.append(
            Entry(
                baseline=baseline.checksum[:16],
                evidence=evidence,
                verdict=check.outcome,
                earned=budget.rate,
                spent=level.level if spends else 0.0,
            )
        )
    return replace(check, history=level, remarks=(*check.remarks, _remark(level, history, alarms_per_100)))


def check_options(margin: float, alpha: float, history: Path | None, alarms_per_100: float) -> None:
    """Checks what can be checked of the arguments of `guard` before there is a study.

    Raises:
        SpecError: numbers that make no sense.
        DataError: the history cannot be used.
    """
    check_levels(margin, alpha)
    if history is None:
        return
    if not _LEAST_ALARMS <= alarms_per_100 <= 100 * alpha:
        raise SpecError(
            f"{alarms_per_100:g} alarms per 100 checks: must not lie below {_LEAST_ALARMS:g} nor above 100 × alpha "
            f"({100 * alpha:g})"
        )
    with History(history).held():
        pass


def _remark(level: Level, history: Path, alarms_per_100: float) -> str:
    again = ", the same outcomes as before" if level.repeated else ""
    return (
        f"Check {level.check} of {history}{again}: worse is claimed at level {level.level:.3g}, so that on average at "
        f"most {alarms_per_100:g} of 100 checks of an unchanged project raise a false alarm."
    )
