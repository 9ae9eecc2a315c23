"""A study against its baseline: identical, non-inferior, worse, or inconclusive.

Per curve (one method on one model and task under one protocol) the mean over sizes of the accuracy difference is
tested, see `capacity_analysis.seed_tests`:

- identical: every answer of every run is the same;
- worse: the mean fell, at the level allowed, and by more than the margin;
- non-inferior: the lower end of the interval lies above −margin, and no size fell by more than the margin on its own;
- inconclusive: neither could be shown. Not being significant never passes.

The study is worse if any curve is (each at level/curves, Bonferroni) and non-inferior only if every curve is (each at
alpha: the intersection–union test needs no correction; Berger, Technometrics 1982).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from capacity.config import canonical_json
from capacity.errors import DataError, SpecError
from capacity_analysis.baseline import Baseline, Cell
from capacity_analysis.matching import (
    CONTROLS,
    cell_label,
    check_seeds,
    curve_name,
    identical,
    is_judged,
    match,
    short_names,
    size_labels,
)
from capacity_analysis.seed_tests import (
    MeanChange,
    Permutation,
    SizeChange,
    dispersion,
    mcnemar,
    mean_change,
    permutation_test,
    power,
    size_changes,
    smallest_drop,
)
from capacity_analysis.threshold_shift import ThresholdShift, threshold_shift

Outcome = Literal["identical", "non-inferior", "worse", "inconclusive"]
# The drop that a guard should see four times in five.
SHOWN_DROP, WANTED_POWER = 0.05, 0.8
_MOST_SEEDS = 50
_LEAST_ALPHA = 1e-6


@dataclass(frozen=True)
class Size:
    """One size of a curve. `change` is None with one seed; `identical`: every answer is the same."""

    label: str
    trained_parameters: int
    before: float
    after: float
    identical: bool
    change: SizeChange | None

    @property
    def moved(self) -> Literal["up", "down", "no"]:
        """Where the size went, if its interval (all sizes together) excludes no change."""
        if self.change is None or self.identical or self.change.low <= 0 <= self.change.high:
            return "no"
        return "up" if self.change.low > 0 else "down"


@dataclass(frozen=True)
class Design:
    """What this check could have shown, from the standard error that it found.

    `smallest_drop`: called "worse" four times in five (None: no drop at all); `power`: of a drop of 5 points;
    `seeds_needed`: for four times in five at 5 points (None: more than 50).
    """

    level: float
    smallest_drop: float | None
    power: float
    seeds_needed: int | None


@dataclass(frozen=True)
class CurveCheck:
    """One curve against its baseline. `change` and what follows from it are None with fewer than two seeds."""

    name: str
    outcome: Outcome
    reason: str
    sizes: tuple[Size, ...]
    seeds_before: tuple[int, ...]
    seeds_after: tuple[int, ...]
    change: MeanChange | None
    permutation: Permutation | None
    dispersion: float | None
    design: Design | None
    thresholds: ThresholdShift | None


@dataclass(frozen=True)
class BaseCheck:
    """The untrained model, which has no seeds: answers lost and gained, exact McNemar test.

    `same_protocol`: it was evaluated as the trained runs are, not at another temperature or on other items.
    """

    name: str
    same_protocol: bool
    before: float
    after: float
    lost: int
    gained: int
    p: float


@dataclass(frozen=True)
class Check:
    """The result of `capacity check`. `level`: that "worse" may be claimed at, over all curves together."""

    outcome: Outcome
    margin: float
    alpha: float
    level: float
    curves: tuple[CurveCheck, ...]
    bases: tuple[BaseCheck, ...]
    environment: str
    remarks: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types; shares of 1 throughout."""
        raw = asdict(self)
        for curve, check in zip(raw["curves"], self.curves, strict=True):
            for row, size in zip(curve["sizes"], check.sizes, strict=True):
                row["moved"] = size.moved
        return raw


def evidence_digest(study: Baseline, baseline: Baseline, margin: float, alpha: float) -> str:
    """What a check judges, as 16 hex digits: equal digests, the same check."""
    parts = [baseline.checksum, [c.model_dump(mode="json") for c in study.cells], margin, alpha]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def same_answers(study: Baseline, baseline: Baseline) -> bool:
    """Whether every run of the baseline is in the study with every answer the same."""
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
        study: `capacity_analysis.baseline.snapshot` of the new study.
        baseline: what it is compared with.
        margin: the largest tolerated drop of the mean accuracy over sizes, as a share of 1.
        alpha: one-sided error of "non-inferior", and of "worse" unless `level` says less.
        level: of "worse", over all curves together.
        seed: of the random permutations, where there are too many to go through.

    Raises:
        SpecError: a margin or alpha that makes no sense.
        DataError: the protocols differ, or sizes or items of the baseline are missing.
    """
    check_levels(margin, alpha)
    level = alpha if level is None else min(level, alpha)
    pairs = match(study, baseline)
    trained = [(old, new) for old, new in pairs if old.spec["training"] is not None]
    protocols = [old.spec["evaluation"] for old, _ in trained]
    untrained = [(old, new) for old, new in pairs if old.spec["training"] is None]
    bases = [_base_check(new, old, same_protocol=old.spec["evaluation"] in protocols) for old, new in untrained]
    curves: dict[str, list[tuple[Cell, Cell]]] = {}
    for old, new in trained:
        if is_judged(old):
            curves.setdefault(curve_name(old), []).append((old, new))
    if not curves:
        raise DataError("the baseline has no trained run: make it from a study that trains")
    for cells in curves.values():
        check_seeds([old for old, _ in cells])
        check_seeds([new for _, new in cells])
    names = short_names(list(curves))
    generator = np.random.default_rng(seed)
    checks = tuple(
        _curve_check(
            names[name], cells, _base_of(cells[0][0], untrained), margin, alpha, level / len(curves), generator
        )
        for name, cells in curves.items()
    )
    checks = tuple(_held_back(check, bases, margin, alpha) for check in checks)
    outcome = _overall([check.outcome for check in checks])
    if outcome == "identical" and not all(identical(old, new) for old, new in pairs):
        outcome = "non-inferior"
    remarks = _remarks(study, pairs, checks, bases)
    return Check(
        outcome=outcome,
        margin=margin,
        alpha=alpha,
        level=level,
        curves=checks,
        bases=tuple(bases),
        environment=baseline.fingerprint.difference(study.fingerprint),
        remarks=remarks,
        verdict=_verdict(outcome, checks, margin),
    )


def check_levels(margin: float, alpha: float) -> None:
    """Whether margin and alpha can be meant.

    Raises:
        SpecError: they cannot.
    """
    if not 0 < margin < 1:
        raise SpecError(f"margin {margin:g}: a share of 1 is needed, such as 0.02 for two points")
    if not _LEAST_ALPHA <= alpha < 0.5:
        raise SpecError(f"alpha {alpha:g}: must lie between {_LEAST_ALPHA:g} and 0.5, such as 0.05")


def _base_check(new: Cell, old: Cell, *, same_protocol: bool) -> BaseCheck:
    shared = [seed for seed in old.seeds if seed in new.seeds]
    if not shared:
        raise DataError(f"{cell_label(old)}: study and baseline share no seed: run the study of the baseline")
    was, now = old.answers(shared[0]), new.answers(shared[0])
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    accuracies = float(was.mean()), float(now.mean())
    return BaseCheck(cell_label(old), same_protocol, *accuracies, lost, gained, mcnemar(lost, gained))


def _base_of(cell: Cell, untrained: Sequence[tuple[Cell, Cell]]) -> float | None:
    """The baseline's accuracy of the untrained model under the protocol of a trained cell."""
    for old, _ in untrained:
        if all(old.spec[name] == cell.spec[name] for name in ("model", "evaluation")):
            return old.accuracy(old.seeds[0])
    return None


def _curve_check(
    name: str,
    pairs: Sequence[tuple[Cell, Cell]],
    base: float | None,
    margin: float,
    alpha: float,
    level: float,
    generator: np.random.Generator,
) -> CurveCheck:
    pairs = sorted(pairs, key=lambda pair: (pair[0].trained_parameters, pair[0].key))
    old_cells, new_cells = [old for old, _ in pairs], [new for _, new in pairs]
    before, after = old_cells[0].seeds, new_cells[0].seeds
    same = [identical(old, new) for old, new in pairs]
    paired = before == after
    labels = size_labels(old_cells)
    changes: Sequence[SizeChange | None] = [None] * len(pairs)
    change = permutation = spread = design = thresholds = None
    outcome: Outcome = "inconclusive"
    reason = "fewer than two seeds, so the spread between seeds is unknown"
    if min(len(before), len(after)) >= 2:
        old = np.array([[cell.accuracy(seed) for cell in old_cells] for seed in before])
        new = np.array([[cell.accuracy(seed) for cell in new_cells] for seed in after])
        answers = np.array([cell.n_answers for cell in old_cells])
        resolution = float(1 / answers.min())
        change = mean_change(new, old, paired=paired, margin=margin, alpha=alpha, resolution=resolution)
        moved = size_changes(new, old, answers, paired=paired, alpha=alpha)
        permutation = permutation_test(new, old, paired=paired, generator=generator)
        spread = dispersion(new, answers)
        design = _design(change, margin, level)
        if not all(same):
            parameters = [cell.trained_parameters for cell in old_cells]
            thresholds = threshold_shift(parameters, old, new, answers, base, generator)
        outcome, reason = judge(change, moved, labels, margin, level)
        changes = moved
    if all(same):
        outcome, reason = "identical", "every answer is the same"
    sizes = []
    for i, (o, n) in enumerate(pairs):
        was, now = (float(np.mean([c.accuracy(s) for s in c.seeds])) for c in (o, n))
        sizes.append(Size(labels[i], o.trained_parameters, was, now, same[i], changes[i]))
    return CurveCheck(
        name, outcome, reason, tuple(sizes), before, after, change, permutation, spread, design, thresholds
    )  # fmt: skip


def judge(
    change: MeanChange, sizes: Sequence[SizeChange], labels: Sequence[str], margin: float, level: float
) -> tuple[Outcome, str]:
    """The outcome of a curve that is not identical, and why.

    Args:
        change: of the mean over sizes; its alpha is that of "non-inferior".
        sizes: what each size did, in intervals that hold together.
        labels: their names.
        margin: as a share of 1.
        level: of "worse".
    """
    fell = change.p_worse <= level
    if fell and change.estimate < -margin:
        return "worse", f"the mean fell by more than the margin (p = {change.p_worse:.2g}, level {level:.2g})"
    if change.p_inferior > change.alpha:
        if change.p_worse <= change.alpha and change.estimate < -margin:
            return "inconclusive", (
                f"the mean fell by more than the margin (p = {change.p_worse:.2g}), but the level here is {level:.2g}"
            )
        if fell:
            return "inconclusive", "the mean fell, by less than the margin, but a larger drop is not excluded"
        return "inconclusive", "a mean drop beyond the margin is neither shown nor excluded"
    fallen = [name for name, s in zip(labels, sizes, strict=True) if s.high < 0 and s.estimate < -margin]
    if fallen:
        return "inconclusive", f"the mean holds, but size {', '.join(fallen)} fell by more than the margin on its own"
    small = ", though it did fall" if fell else ""
    return "non-inferior", f"a mean drop of the margin or more is excluded (p = {change.p_inferior:.2g}){small}"


def _held_back(check: CurveCheck, bases: Sequence[BaseCheck], margin: float, alpha: float) -> CurveCheck:
    """No curve passes while the untrained model itself has fallen by more than the margin."""
    fallen = [b.name for b in bases if b.same_protocol and b.after - b.before < -margin and b.p <= alpha]
    if not fallen or check.outcome not in ("identical", "non-inferior"):
        return check
    reason = f"the untrained model ({', '.join(fallen)}) fell by more than the margin"
    return CurveCheck(**{**vars(check), "outcome": "inconclusive", "reason": reason})


def _design(change: MeanChange, margin: float, level: float) -> Design:
    error, df, seeds = change.standard_error, change.df, change.seeds

    def power_with(count: int) -> float:
        return power(SHOWN_DROP, error * (seeds / count) ** 0.5, df * (count - 1) / (seeds - 1), margin, level)

    reached = power_with(seeds)
    needed: int | None = seeds
    if reached < WANTED_POWER:
        needed = next((m for m in range(seeds + 1, _MOST_SEEDS + 1) if power_with(m) >= WANTED_POWER), None)
    return Design(level, smallest_drop(error, df, margin, level, WANTED_POWER), reached, needed)


def _overall(outcomes: Sequence[Outcome]) -> Outcome:
    """Worse if one is; else inconclusive if one is; identical only if all are."""
    for outcome in ("worse", "inconclusive", "non-inferior"):
        if outcome in outcomes:
            return outcome
    return "identical"


def _remarks(
    study: Baseline,
    pairs: Sequence[tuple[Cell, Cell]],
    curves: Sequence[CurveCheck],
    bases: Sequence[BaseCheck],
) -> tuple[str, ...]:
    """What a reader should know besides the outcome."""
    remarks = []
    compared = {new.key: new.seeds for _, new in pairs}
    extra = [cell_label(cell) for cell in study.cells if cell.key not in compared]
    seeds = {
        seed for cell in study.cells if cell.key in compared for seed in cell.seeds if seed not in compared[cell.key]
    }
    if seeds:
        extra.append(f"seed {_seeds(sorted(seeds))}")
    if extra:
        remarks.append(f"Not in the baseline and not compared: {', '.join(extra)}.")
    controls = [(old, new) for old, new in pairs if old.spec["method"] in CONTROLS]
    if controls:
        names = ", ".join(sorted({old.spec["method"] for old, _ in controls}))
        other = [cell_label(old) for old, new in controls if not identical(old, new)]
        remarks.append(
            f"Controls are not judged: {names}" + (f" (other answers: {', '.join(other)})." if other else ".")
        )
    if not bases:
        remarks.append("No untrained model was evaluated, so there is no gain to take a threshold of.")
    for curve in curves:
        design = curve.design
        if design is not None and curve.outcome != "identical" and design.power < WANTED_POWER:
            needed = f"{design.seeds_needed} seeds" if design.seeds_needed else f"more than {_MOST_SEEDS} seeds"
            remarks.append(
                f"{curve.name}: this design shows a drop of {100 * SHOWN_DROP:g} points only with probability "
                f"{design.power:.2f}; {needed} of this spread would reach {WANTED_POWER:g}."
            )
        if curve.outcome == "worse" and curve.permutation is not None and curve.design is not None:
            p, smallest = curve.permutation.p, curve.permutation.smallest
            if p > curve.design.level:
                most = " (the smallest that these seeds can show)" if p == smallest else ""
                remarks.append(
                    f"{curve.name}: exchanging seeds gives p = {p:.3g}{most}; the claim rests on Student's t."
                )
        if curve.change is not None and curve.seeds_before != curve.seeds_after:
            remarks.append(
                f"{curve.name}: study and baseline have other seeds ({_seeds(curve.seeds_after)} against "
                f"{_seeds(curve.seeds_before)}), so they are compared as two samples, not in pairs."
            )
    changed = [b for b in bases if b.lost or b.gained]
    for base in changed:
        remarks.append(
            f"The untrained model answers differently ({base.name}: {base.lost} answers lost, {base.gained} gained, "
            f"McNemar p = {base.p:.2g}): something besides training changed."
        )
    return tuple(remarks)


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _verdict(outcome: Outcome, curves: Sequence[CurveCheck], margin: float) -> str:
    """One sentence."""
    parts = []
    for curve in curves:
        text = f"{curve.name} {curve.outcome}"
        if curve.change is not None and curve.outcome != "identical":
            e, low, high = (100 * x for x in (curve.change.estimate, curve.change.low, curve.change.high))
            confidence = 100 * (1 - 2 * curve.change.alpha)
            text += f", {e:+.1f} points ({confidence:g} % interval {low:+.1f} to {high:+.1f})"
        if curve.outcome != "identical":
            text += f": {curve.reason}"
        parts.append(text)
    if outcome == "identical":
        return "Identical: every answer of every run is the same as in the baseline."
    return f"{outcome.capitalize()} (margin {100 * margin:g} points): {'; '.join(parts)}."
