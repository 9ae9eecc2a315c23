"""What is asked of curves: a target, as an accuracy or as a share of the gain, and what its intervals are for."""

from dataclasses import dataclass

import numpy as np

from capacity.errors import DataError, SpecError
from capacity_analysis.data.select import Design
from capacity_analysis.statistics.spread import Spread, drawn_variance
from capacity_analysis.types import Items


@dataclass(frozen=True)
class Question:
    """What is asked of a design.

    Attributes:
        target: an absolute accuracy; None: `gain`.
        gain: share of the way from the base to the ceiling.
        ceiling: its accuracy; None: measured.
        lower, upper: fixed limits of the Hill curves.
        items: `these`, only seeds are random; `population`, items too.
        replicates: of the resampling behind `fraction_not_reached`.
    """

    target: float | None = None
    gain: float = 0.8
    ceiling: float | None = None
    lower: float | None = None
    upper: float | None = None
    items: Items = "these"
    replicates: int = 1000

    def __post_init__(self) -> None:
        for name in ("target", "gain", "ceiling", "lower", "upper"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SpecError(f"--{name} {value:g} is not a share from 0 to 1 (percent?)")
        if self.target is None and not 0 < self.gain < 1:
            raise SpecError(f"--gain {self.gain:g}: a share of the gain lies between 0 and 1, ends excluded")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise SpecError(f"--lower {self.lower:g} is not below --upper {self.upper:g}")


@dataclass(frozen=True)
class Target:
    """The accuracy asked of every curve.

    Attributes:
        accuracy: as estimated.
        of_base: the variance of that estimate through the base's own answers.
        moves: how far the target moves with the ceiling; 0 for an absolute target and for a ceiling that is given.
        gain, base, ceiling: what it was made from; None for an absolute target.
        ceiling_from: curve, size and reason, or "given".
    """

    accuracy: float
    of_base: float
    moves: float
    gain: float | None
    base: float | None
    ceiling: float | None
    ceiling_from: str


def target_of(design: Design, question: Question, spreads: dict[str, Spread]) -> Target:
    """The target of a design, from the spread of seeds of each of its curves, by label.

    Raises:
        DataError: no base to gain on, or a ceiling that is not above it.
    """
    if question.target is not None:
        return Target(question.target, 0.0, 0.0, None, None, None, "")
    where = f" on {design.model}" if design.model else ""
    if design.base is None:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: no row of the untrained base (method base, "
            "trained_parameters 0) under the same task, protocol and split; give --target instead"
        )
    base = float(np.nanmean(design.base.accuracy))
    q = question.gain
    if question.ceiling is not None:
        ceiling, moves, source = question.ceiling, 0.0, "given"
    else:
        label, size = design.ceiling
        curve = next(c for c in design.curves if c.label == label)
        place = int(np.flatnonzero(curve.sizes == size)[0])
        ceiling, moves = float(spreads[label].mean[0, place]), q
        source = f"{label} at {size:,.0f} {design.unit}, {design.ceiling_reason}"
    if ceiling <= base:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: the ceiling ({ceiling:.4f}, {source}) is not above "
            f"the base ({base:.4f}); give --target or --ceiling"
        )
    of_base = (1 - q) ** 2 * _base_variance(design, base, list(spreads.values()))
    return Target(base + q * (ceiling - base), of_base, moves, q, base, ceiling, source)


def _base_variance(design: Design, base: float, spreads: list[Spread]) -> float:
    """The variance of the base's mean accuracy through the draws of its answers, on fixed items.

    Greedy answers are not drawn. The error of one draw that all runs share counts elsewhere. Nothing is known of the
    draws where neither the base's answers are counted nor trained runs have several seeds.
    """
    if design.draws in ("none", "common") or design.base is None:
        return 0.0
    counted = np.inf if design.base.answers is None else 1.0 / float(design.base.answers[0])
    multiple = min(counted, float(drawn_variance(spreads)[0]))
    runs = int((~np.isnan(design.base.accuracy)).sum())
    return multiple * base * (1 - base) / runs if np.isfinite(multiple) else 0.0
