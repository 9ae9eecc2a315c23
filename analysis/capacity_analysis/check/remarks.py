"""What the reader of a check should know besides its numbers, in words."""

from collections.abc import Sequence

from capacity_analysis.check.baseline import Baseline, StoredCell
from capacity_analysis.check.matching import identical, is_judged, seed_names
from capacity_analysis.check.result import BaseCheck, CheckOutcome, CurveCheck

# The drop that a guard should see four times in five.
SHOWN_DROP, WANTED_POWER = 0.05, 0.8
MOST_SEEDS = 50


def remarks(
    study: Baseline,
    pairs: Sequence[tuple[StoredCell, StoredCell]],
    curves: Sequence[CurveCheck],
    bases: Sequence[BaseCheck],
) -> tuple[str, ...]:
    """What a reader should know besides the outcome."""
    found = []
    compared = {new.cell: {run.seeds for run in new.runs} for _, new in pairs}
    extra = [stored.label for stored in study.cells if stored.cell not in compared]
    seeds = {run.seeds for stored in study.cells if stored.cell in compared for run in stored.runs
             if run.seeds not in compared[stored.cell]}  # fmt: skip
    if seeds:
        extra.append(f"seed {seed_names(sorted(seeds))}")
    if extra:
        found.append(f"Not in the baseline and not compared: {', '.join(extra)}.")
    controls = [(old, new) for old, new in pairs if old.cell.spec.method != "base" and not is_judged(old.cell)]
    if controls:
        names = ", ".join(sorted({old.cell.spec.method for old, _ in controls}))
        other = [old.label for old, new in controls if not identical(old, new)]
        found.append(f"Controls are not judged: {names}" + (f" (other answers: {', '.join(other)})." if other else "."))
    if any("" in (old.contents_digest, new.contents_digest) for old, new in pairs):
        found.append("Items were compared by name: not all runs recorded what they ask.")
    if any(None in (old.base, new.base) for old, new in pairs):
        found.append("The weights of the base were not compared: not all runs recorded them.")
    if not bases:
        found.append("No untrained model was evaluated, so there is no gain to take a threshold of.")
    for curve in curves:
        design = curve.design
        if design is not None and curve.outcome != "identical" and design.power < WANTED_POWER:
            needed = f"{design.seeds_needed} seeds" if design.seeds_needed else f"more than {MOST_SEEDS} seeds"
            found.append(
                f"{curve.name}: this design shows a drop of {100 * SHOWN_DROP:g} points only with probability "
                f"{design.power:.2f}; {needed} of this spread would reach {WANTED_POWER:g}."
            )
        if curve.outcome == "worse" and curve.permutation is not None and curve.design is not None:
            p, smallest = curve.permutation.p, curve.permutation.smallest
            if p > curve.design.level:
                most = " (the smallest that these seeds can show)" if p == smallest else ""
                found.append(f"{curve.name}: exchanging seeds gives p = {p:.3g}{most}; the claim rests on Student's t.")
        if curve.change is not None and curve.seeds_before != curve.seeds_after:
            after, before = (", ".join(map(str, seeds)) for seeds in (curve.seeds_after, curve.seeds_before))
            found.append(
                f"{curve.name}: study and baseline have other seeds ({after} against {before}), so they are compared "
                "as two samples, not in pairs."
            )
    changed = [b for b in bases if b.lost or b.gained]
    for base in changed:
        found.append(
            f"The untrained model answers differently ({base.name}: {base.lost} answers lost, {base.gained} gained, "
            f"McNemar p = {base.p:.2g}): something besides training changed."
        )
    return tuple(found)


def verdict(outcome: CheckOutcome, curves: Sequence[CurveCheck], margin: float) -> str:
    """The outcome of a check with those of its curves, in one sentence."""
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
