"""Which curve has the smaller updates at equal accuracy, and which is more accurate at equal size.

The ratio here is Bjøntegaard's, an average over all accuracies that two curves share. The ratio at one target is that
of thresholds (`capacity_analysis.thresholds.ratios`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from capacity.errors import SpecError
from capacity_analysis.bits.cells import MeasuredCells
from capacity_analysis.data.curves import curves_of, differ_in, pairs_of
from capacity_analysis.statistics.bjontegaard import inverse_curves, size_ratios
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.types import Array, Items

# Replicates in which the curves share no accuracies leave the interval open once they are more than its tails.
_TAIL = 0.025


@dataclass(frozen=True)
class MeanCurve:
    """A curve's mean accuracies over size, rising in size.

    Attributes:
        model: whose.
        label: what the curve is called.
        sizes: (n,), distinct.
        accuracies: (n,), as measured, mean over seeds.
        weights: (n,), seeds.
        cells: (n,), positions among the measured cells.
        told: its method and the values of all fields that tell curves apart.
    """

    model: str
    label: str
    sizes: Array
    accuracies: Array
    weights: Array
    cells: tuple[int, ...]
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Saving:
    """Size of `test`'s updates over size of `anchor`'s at equal accuracy, averaged over accuracies (Bjøntegaard).

    Attributes:
        model: of both.
        test: curve.
        anchor: curve.
        differ: the fields in which both curves differ, such as the method.
        size_ratio: below 1, `test` needs less; None without overlap.
        low: of the 95 % interval; None if it is open or cannot be estimated, `remark` says why.
        high: upper end.
        overlap: whether the two curves share a range of accuracies.
        accuracy_low: where that range begins; None without overlap.
        accuracy_high: where it ends.
        no_overlap: share of replicates without overlap; None if there are no replicates.
        method: how the interval was made.
        remark: what to know, or "".
    """

    model: str
    test: str
    anchor: str
    differ: tuple[str, ...]
    size_ratio: float | None
    low: float | None
    high: float | None
    overlap: bool
    accuracy_low: float | None
    accuracy_high: float | None
    no_overlap: float | None
    method: str
    remark: str

    @property
    def inverse(self) -> "Saving":
        """The same comparison the other way round."""
        ratio, low, high = (None if x is None else 1 / x for x in (self.size_ratio, self.high, self.low))
        return replace(self, test=self.anchor, anchor=self.test, size_ratio=ratio, low=low, high=high)


@dataclass(frozen=True)
class AtSize:
    """Accuracy of one curve at one size: on its monotone fit, straight in log size between the sizes tested."""

    model: str
    curve: str
    size: float
    estimate: Estimate
    tested: bool


def mean_curves(found: MeasuredCells, by: Sequence[str] | None = None) -> tuple[MeanCurve, ...]:
    """The curves of the measured cells.

    Args:
        found: the cells.
        by: fields that tell curves apart; None: the method, and whatever else does.

    Raises:
        SpecError: as `curves_of`, or cells of one curve in equally many bytes.
    """
    place = {name: number for number, name in enumerate(found.names)}
    made = []
    for curve in curves_of(found.points, by):
        cells = list(dict.fromkeys(place[name] for name in found.points.frame["cell"].iloc[curve.rows]))
        cells.sort(key=lambda cell: found.sizes[cell])
        sizes = found.sizes[cells]
        if len(np.unique(sizes)) < len(sizes):
            raise SpecError(
                f"{found.points.source}: {curve.label} has different numbers of parameters in equally many bytes: use "
                "--unit parameters"
            )
        means, weights = found.accuracies[cells], found.seeds[cells]
        made.append(MeanCurve(curve.model, curve.label, sizes, means, weights, tuple(cells), curve.told))
    return tuple(made)


def savings(
    found: MeasuredCells,
    curves: Sequence[MeanCurve],
    replicates: int,
    rng: np.random.Generator,
    items: Items = "these",
) -> tuple[Saving, ...]:
    """The size ratio of every pair of curves of one model, sft : grpo where they take part.

    The interval is that of the replicates: all curves are drawn anew, made monotone and compared again. So it carries
    the uncertainty of the shared range too. Curves are drawn independently, which is on the safe side for curves that
    share seeds.
    """
    draws = None if np.isnan(found.errors).any() else found.replicates(replicates, rng, items)
    inverted = {}
    for curve in curves:
        values = isotonic(curve.accuracies, curve.weights)[None]
        if draws is not None:
            values = np.concatenate([values, isotonic(draws[:, list(curve.cells)], curve.weights)])
        inverted[curve.model, curve.label] = inverse_curves(curve.sizes, values)
    results = []
    for test, anchor in _pairs(curves):
        by_replicate = size_ratios(inverted[test.model, test.label], inverted[anchor.model, anchor.label])
        estimate, accuracy_low, accuracy_high = (
            _known(values[0]) for values in (by_replicate.ratio, by_replicate.low, by_replicate.high)
        )
        drawn = by_replicate.ratio[1:]
        ratios = drawn[~np.isnan(drawn)]
        missing = 1 - len(ratios) / len(drawn) if len(drawn) else None
        low, high, remark = _interval(ratios, missing)
        if estimate is None:
            low, high, remark = None, None, _apart(test, anchor)
        results.append(
            Saving(
                model=test.model,
                test=test.label,
                anchor=anchor.label,
                differ=differ_in(test.told, anchor.told),
                size_ratio=estimate,
                low=low,
                high=high,
                overlap=estimate is not None,
                accuracy_low=accuracy_low,
                accuracy_high=accuracy_high,
                no_overlap=missing,
                method=f"Bjøntegaard delta on the monotone curve, PCHIP; {found.method}",
                remark=remark,
            )
        )
    return tuple(results)


def _known(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _pairs(curves: Sequence[MeanCurve]) -> list[tuple[MeanCurve, MeanCurve]]:
    pairs = [(curves[n], curves[d]) for n, d in pairs_of([curve.told for curve in curves])]
    return [(test, anchor) for test, anchor in pairs if test.model == anchor.model]


def _interval(ratios: Array, missing: float | None) -> tuple[float | None, float | None, str]:
    if missing is None:
        return None, None, "no counts and no spread between seeds, so no interval"
    if missing > _TAIL:
        return None, None, f"the curves share no accuracies in {100 * missing:.0f} % of the replicates: no interval"
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high), ""


def _apart(test: MeanCurve, anchor: MeanCurve) -> str:
    """Why two curves share no accuracies."""
    a, b = (isotonic(c.accuracies, c.weights) for c in (test, anchor))
    for curve, fitted in ((test, a), (anchor, b)):
        if len(fitted) == 1:
            return f"{curve.label} was tested at one size only, which is no curve"
        if fitted[0] == fitted[-1]:
            return f"{curve.label} does not rise with size, so no accuracy belongs to one size"
    upper, lower = (test, anchor) if a[0] >= b[-1] else (anchor, test)
    what = f"every size of {upper.label} is more accurate than all of {lower.label}"
    return f"{what}, so they share no accuracy to compare at"


def at_equal_size(
    found: MeasuredCells,
    curves: Sequence[MeanCurve],
    replicates: int,
    rng: np.random.Generator,
    items: Items = "these",
) -> tuple[AtSize, ...]:
    """Accuracy of every curve of a model at every size that one of them was tested at and all of them span."""
    draws = None if np.isnan(found.errors).any() else found.replicates(replicates, rng, items)
    results = []
    for model in dict.fromkeys(curve.model for curve in curves):
        own = [curve for curve in curves if curve.model == model]
        least, most = max(c.sizes[0] for c in own), min(c.sizes[-1] for c in own)
        sizes = sorted({float(s) for c in own for s in c.sizes if least <= s <= most})
        for size in sizes:
            for curve in own:
                value = float(_interpolated(curve, isotonic(curve.accuracies, curve.weights), size))
                estimate = Estimate.none(value, seeds := int(curve.weights.min()))
                if draws is not None:
                    drawn = _interpolated(curve, isotonic(draws[:, list(curve.cells)], curve.weights), size)
                    low, high = (float(np.clip(q, 0, 1)) for q in np.quantile(drawn, (0.025, 0.975)))
                    estimate = Estimate(value, low, high, found.over(items), seeds, pooled=found.dispersion is not None)
                results.append(AtSize(model, curve.label, size, estimate, size in curve.sizes))
    return tuple(results)


def _interpolated(curve: MeanCurve, accuracies: Array, size: float) -> Array:
    """Accuracies (..., n) at one size inside the range of the curve, (...)."""
    x, at = np.log10(curve.sizes), np.log10(size)
    right = int(np.clip(np.searchsorted(x, at), 1, max(len(x) - 1, 1)))
    if len(x) == 1:
        return np.asarray(accuracies[..., 0])
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return np.asarray((1 - share) * accuracies[..., right - 1] + share * accuracies[..., right])
