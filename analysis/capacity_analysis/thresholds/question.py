"""What is asked of curves: a target, as an accuracy or as a share of the gain, and what its intervals are for."""

from dataclasses import dataclass

import numpy as np

from capacity.errors import DataError, SpecError
from capacity_analysis.data.select import Design
from capacity_analysis.statistics.spread import Spread, spread_of_seeds
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
        variance: of that estimate over seeds; 0 for an absolute target.
        gain, base, ceiling: what it was made from; None for an absolute target.
        ceiling_from: curve, size and reason, or "given".
    """

    accuracy: float
    variance: float
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
        return Target(question.target, 0.0, None, None, None, "")
    where = f" on {design.model}" if design.model else ""
    if design.base is None:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: no row of the untrained base (method base, "
            "trained_parameters 0) under the same task, protocol and split; give --target instead"
        )
    untrained = spread_of_seeds(design.base.accuracy[None], design.base.answers)
    base = float(untrained.mean[0, 0])
    # A single run of the base is what it is on these items; between several, seeds are random as elsewhere.
    base_variance = float(untrained.variance[0, 0]) if untrained.basis == "seeds" else 0.0
    if question.ceiling is not None:
        ceiling, ceiling_variance, source = question.ceiling, 0.0, "given"
    else:
        label, size = design.ceiling
        curve = next(c for c in design.curves if c.label == label)
        place = int(np.flatnonzero(curve.sizes == size)[0])
        ceiling, ceiling_variance = float(spreads[label].mean[0, place]), float(spreads[label].variance[0, place])
        source = f"{label} at {size:,.0f} {design.unit}, {design.ceiling_reason}"
    if ceiling <= base:
        raise DataError(
            f"a share of the gain{where} cannot be estimated: the ceiling ({ceiling:.4f}, {source}) is not above "
            f"the base ({base:.4f}); give --target or --ceiling"
        )
    q = question.gain
    variance = (1 - q) ** 2 * base_variance + q**2 * np.nan_to_num(ceiling_variance)
    return Target(base + q * (ceiling - base), float(variance), q, base, ceiling, source)
