"""A study against its baseline: identical, non-inferior, worse, or inconclusive.

Per curve (one method on one model and task under one protocol) the mean over sizes of the accuracy difference is
tested, see `capacity_analysis.statistics.seed_tests`:

- identical: every answer of every run is the same;
- worse: the mean fell, at the level allowed, and by more than the margin; or seeds collapse more often than is
  tolerated (`capacity_analysis.check.collapses`);
- non-inferior: the interval's lower end lies above −margin, no size alone fell by more, and collapses are not more
  frequent at alpha;
- inconclusive: neither could be shown. Not being significant never passes.

The study is worse if any curve is, each at level/curves (Bonferroni). It is non-inferior only if every curve is, each
at alpha. The intersection–union test needs no correction (Berger, Technometrics 1982).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from capacity.errors import DataError, SpecError
from capacity.spec.frozen import canonical_json
from capacity_analysis.check.baseline import Baseline, StoredCell
from capacity_analysis.check.collapses import PART, CollapseCheck, collapse_check
from capacity_analysis.check.matching import (
    check_seeds,
    curve_names,
    curve_of,
    identical,
    is_judged,
    match,
    size_labels,
)
from capacity_analysis.check.remarks import MOST_SEEDS, SHOWN_DROP, WANTED_POWER, remarks, verdict
from capacity_analysis.check.result import BaseCheck, Check, CheckDesign, CheckOutcome, CurveCheck, SizeCheck
from capacity_analysis.statistics.seed_tests import (
    MeanChange,
    SizeChange,
    dispersion,
    mcnemar,
    mean_change,
    permutation_test,
    power,
    size_changes,
    smallest_drop,
)
from capacity_analysis.thresholds.shift import threshold_shift

_LEAST_ALPHA = 1e-6
Pair = tuple[StoredCell, StoredCell]  # of the baseline and of the study


def evidence_digest(study: Baseline, baseline: Baseline, margin: float, alpha: float) -> str:
    """What a check judges, as 16 hex digits: equal digests, the same check.

    Raises:
        DataError: study and baseline cannot be compared.
    """
    compared = [new.model_dump(mode="json") for _, new in match(study, baseline)]
    parts = [baseline.checksum, compared, margin, alpha]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def same_answers(study: Baseline, baseline: Baseline) -> bool:
    """True if every run of the baseline is in the study with every answer the same.

    Raises:
        DataError: study and baseline cannot be compared.
    """
    return all(identical(new, old) for old, new in match(study, baseline))


def check_study(
    study: Baseline,
    baseline: Baseline,
    *,
    margin: float,
    alpha: float = 0.05,
    level: float | None = None,
    seed: int = 0,
) -> Check:
    """Compares a study with its baseline.

    Args:
        study: `capacity_analysis.check.snapshot.snapshot` of the new study.
        baseline: what it is compared with.
        margin: the largest tolerated drop of the mean accuracy over sizes, as a share of 1.
        alpha: one-sided error of "non-inferior", and of "worse" unless `level` says less.
        level: of "worse", over all curves together.
        seed: of the random permutations, where there are too many to go through.

    Raises:
        SpecError: a margin or alpha that makes no sense.
        DataError: the protocols or items differ, sizes or seeds of the baseline are missing, or the sizes of a curve
            have different seeds.
    """
    check_levels(margin, alpha)
    level = alpha if level is None else min(level, alpha)
    pairs = match(study, baseline)
    trained = [(old, new) for old, new in pairs if old.cell.spec.training is not None]
    protocols = [old.cell.spec.evaluation for old, _ in trained]
    untrained = [(old, new) for old, new in pairs if old.cell.spec.method == "base"]
    several = len({old.cell.spec.model for old, _ in untrained}) > 1
    bases = [
        _base_check(new, old, several_models=several, same_protocol=old.cell.spec.evaluation in protocols)
        for old, new in untrained
    ]
    curves: dict[str, list[Pair]] = {}
    for old, new in trained:
        if is_judged(old.cell):
            curves.setdefault(curve_of(old.cell), []).append((old, new))
    if not curves:
        raise DataError("the baseline has no trained run: make it from a study that trains")
    for sizes in curves.values():
        check_seeds([old for old, _ in sizes])
        check_seeds([new for _, new in sizes])
    names = curve_names([sizes[0][0].cell for sizes in curves.values()])
    generator = np.random.default_rng(seed)
    checks = tuple(
        _curve_check(name, sizes, _base_of(sizes[0][0], untrained), margin, alpha, level / len(curves), generator)
        for name, sizes in zip(names, curves.values(), strict=True)
    )
    checks = tuple(_held_back(check, bases, margin, alpha) for check in checks)
    outcome = _overall([check.outcome for check in checks])
    if outcome == "identical" and not all(identical(old, new) for old, new in pairs):
        outcome = "non-inferior"
    return Check(
        outcome=outcome,
        margin=margin,
        alpha=alpha,
        level=level,
        curves=checks,
        bases=tuple(bases),
        environment=baseline.fingerprint.difference(study.fingerprint),
        remarks=remarks(study, pairs, checks, bases),
        verdict=verdict(outcome, checks, margin),
    )


def check_levels(margin: float, alpha: float) -> None:
    """Checks that margin and alpha can be meant.

    Raises:
        SpecError: they cannot.
    """
    if not 0 < margin < 1:
        raise SpecError(f"margin {margin:g}: a share of 1 is needed, such as 0.02 for two points")
    if not _LEAST_ALPHA <= alpha < 0.5:
        raise SpecError(f"alpha {alpha:g}: must lie between {_LEAST_ALPHA:g} and 0.5, such as 0.05")


def _base_check(new: StoredCell, old: StoredCell, *, several_models: bool, same_protocol: bool) -> BaseCheck:
    first = old.runs[0]
    again = next((run for run in new.runs if run.seeds == first.seeds), None)
    if again is None:
        raise DataError(f"{old.label}: study and baseline share no seed: run the study of the baseline")
    was, now = old.answers(first), new.answers(again)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    accuracies = float(was.mean()), float(now.mean())
    name = f"{old.cell.spec.model} {old.label}" if several_models else old.label
    return BaseCheck(name, same_protocol, *accuracies, lost, gained, mcnemar(lost, gained))


def _base_of(trained: StoredCell, untrained: Sequence[Pair]) -> float | None:
    """The baseline's accuracy of the untrained model under the protocol of a trained cell."""
    wanted = trained.cell.spec
    for old, _ in untrained:
        if (old.cell.spec.model, old.cell.spec.evaluation) == (wanted.model, wanted.evaluation):
            return old.accuracy(old.seeds[0])
    return None


def _curve_check(
    name: str,
    pairs: Sequence[Pair],
    base: float | None,
    margin: float,
    alpha: float,
    level: float,
    generator: np.random.Generator,
) -> CurveCheck:
    pairs = sorted(pairs, key=lambda pair: (pair[0].trained_parameters, canonical_json(pair[0].spec)))
    old_sizes, new_sizes = [old for old, _ in pairs], [new for _, new in pairs]
    before, after = old_sizes[0].seeds, new_sizes[0].seeds
    same = [identical(old, new) for old, new in pairs]
    paired = before == after
    labels = size_labels(old_sizes)
    changes: Sequence[SizeChange | None] = [None] * len(pairs)
    change = permutation = spread = design = thresholds = collapses = None
    outcome: CheckOutcome = "inconclusive"
    reason = "fewer than two seeds, so the spread between seeds is unknown"
    if min(len(before), len(after)) >= 2:
        old = np.array([[size.accuracy(seed) for size in old_sizes] for seed in before])
        new = np.array([[size.accuracy(seed) for size in new_sizes] for seed in after])
        answers = np.array([size.answers_per_seed for size in old_sizes])
        resolution = float(1 / answers.min())
        change = mean_change(new, old, paired=paired, margin=margin, alpha=alpha, resolution=resolution)
        moved = size_changes(new, old, answers, paired=paired, alpha=alpha)
        permutation = permutation_test(new, old, paired=paired, generator=generator)
        spread = dispersion(new, answers)
        of_mean = (1 - PART) * level
        design = _design(change, margin, of_mean)
        collapses = collapse_check(new, old, answers, PART * level)
        if not all(same):
            parameters = [size.trained_parameters for size in old_sizes]
            thresholds = threshold_shift(parameters, old, new, answers, base, generator)
        outcome, reason = judge(change, moved, labels, margin, of_mean, collapses)
        changes = moved
    if all(same):
        outcome, reason = "identical", "every answer is the same"
    sizes = []
    for i, (o, n) in enumerate(pairs):
        was, now = (float(np.mean([size.accuracy(seed) for seed in size.seeds])) for size in (o, n))
        sizes.append(SizeCheck(labels[i], o.trained_parameters, was, now, same[i], changes[i]))
    return CurveCheck(
        name, outcome, reason, tuple(sizes), before, after, change, permutation, spread, design, thresholds, collapses
    )


def judge(
    change: MeanChange,
    sizes: Sequence[SizeChange],
    labels: Sequence[str],
    margin: float,
    level: float,
    collapses: CollapseCheck | None = None,
) -> tuple[CheckOutcome, str]:
    """The outcome of a curve that is not identical, and why.

    Args:
        change: of the mean over sizes; its alpha is that of "non-inferior".
        sizes: what each size did, in intervals that hold together.
        labels: their names.
        margin: as a share of 1.
        level: of "worse" by the mean.
        collapses: of seeds; None: not counted.
    """
    fell = change.p_worse <= level
    if fell and change.estimate < -margin:
        return "worse", f"the mean fell by more than the margin (p = {change.p_worse:.2g}, level {level:.2g})"
    if collapses is not None and collapses.worse:
        return "worse", f"{collapses.words} (p = {collapses.p:.2g}, level {collapses.level:.2g})"
    if change.p_inferior > change.alpha:
        return "inconclusive", _undecided(change, margin, level)
    fallen = [name for name, s in zip(labels, sizes, strict=True) if s.high < 0 and s.estimate < -margin]
    if fallen:
        return "inconclusive", f"the mean holds, but size {', '.join(fallen)} fell by more than the margin on its own"
    if collapses is not None and collapses.shown(change.alpha):
        return "inconclusive", f"the mean holds, but {collapses.words}"
    small = ", though it did fall" if fell else ""
    return "non-inferior", f"a mean drop of the margin or more is excluded (p = {change.p_inferior:.2g}){small}"


def _undecided(change: MeanChange, margin: float, level: float) -> str:
    """Why a curve of which a drop beyond the margin is not excluded is not called worse."""
    if change.p_worse <= change.alpha and change.estimate < -margin:
        return f"the mean fell by more than the margin (p = {change.p_worse:.2g}), but the level here is {level:.2g}"
    if change.p_worse <= level:
        return "the mean fell, by less than the margin, but a larger drop is not excluded"
    return "a mean drop beyond the margin is neither shown nor excluded"


def _held_back(check: CurveCheck, bases: Sequence[BaseCheck], margin: float, alpha: float) -> CurveCheck:
    """No curve passes while the untrained model itself has fallen by more than the margin."""
    fallen = [b.name for b in bases if b.same_protocol and b.after - b.before < -margin and b.p <= alpha]
    if not fallen or check.outcome not in ("identical", "non-inferior"):
        return check
    reason = f"the untrained model ({', '.join(fallen)}) fell by more than the margin"
    return replace(check, outcome="inconclusive", reason=reason)


def _design(change: MeanChange, margin: float, level: float) -> CheckDesign:
    error, df, seeds = change.standard_error, change.df, change.seeds

    def power_with(count: int) -> float:
        return power(SHOWN_DROP, error * (seeds / count) ** 0.5, df * (count - 1) / (seeds - 1), margin, level)

    reached = power_with(seeds)
    needed: int | None = seeds
    if reached < WANTED_POWER:
        needed = next((m for m in range(seeds + 1, MOST_SEEDS + 1) if power_with(m) >= WANTED_POWER), None)
    return CheckDesign(level, smallest_drop(error, df, margin, level, WANTED_POWER), reached, needed)


def _overall(outcomes: Sequence[CheckOutcome]) -> CheckOutcome:
    """Worse if one is; else inconclusive if one is; identical only if all are."""
    for outcome in ("worse", "inconclusive", "non-inferior"):
        if outcome in outcomes:
            return outcome
    return "identical"
