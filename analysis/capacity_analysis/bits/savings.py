"""Which arm needs the smaller update at equal accuracy, and which is more accurate at equal size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pandas as pd

from capacity.errors import SpecError
from capacity_analysis.bits.configurations import DETAILS, KEY, Configurations
from capacity_analysis.statistics.bjontegaard import SizeRatio, inverse_curve, size_ratio
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.monotone import isotonic
from capacity_analysis.types import Array, Items

# Replicates in which the curves share no accuracies leave the interval open once they are more than its tails.
_TAIL = 0.025
ARMS = ("method", "demonstrations", "storage_dtype")


@dataclass(frozen=True)
class Curve:
    """One arm's accuracies over size, rising in size.

    Attributes:
        model: whose.
        arm: what it is called.
        method: of training.
        sizes: (n,), distinct.
        accuracies: (n,), as measured, mean over seeds.
        weights: (n,), seeds.
        rows: (n,), of the configurations.
    """

    model: str
    arm: str
    method: str
    sizes: Array
    accuracies: Array
    weights: Array
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Saving:
    """Size of `test`'s updates over size of `anchor`'s at equal accuracy.

    Attributes:
        model: of both.
        test: arm.
        anchor: arm.
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
    size_ratio: float | None
    low: float | None
    high: float | None
    overlap: bool
    accuracy_low: float | None
    accuracy_high: float | None
    no_overlap: float | None
    method: str
    remark: str


@dataclass(frozen=True)
class AtSize:
    """Accuracy of one arm at one size: on its monotone curve, straight in log size between the sizes tested."""

    model: str
    arm: str
    size: float
    estimate: Estimate
    tested: bool


def curves(found: Configurations, by: Sequence[str] = ARMS) -> tuple[Curve, ...]:
    """The curves of a table.

    Args:
        found: the configurations.
        by: columns that tell arms apart; those that are the same for all arms of a method do not show in the name.

    Raises:
        SpecError: an unknown column, or an arm with two configurations of one size.
    """
    allowed = [name for name in KEY if name not in ("model", "trained_parameters")]
    for name in by:
        if name not in allowed:
            raise SpecError(f"--by {name!r}: choose from {', '.join(allowed)}")
    frame = found.frame[found.frame["method"] != "base"]
    several = [name for name in by if name == "method" or _varies(frame, name)]
    made = []
    for _, rows in frame.groupby(["model", *by], dropna=False, sort=False):
        ordered = rows.sort_values("size", kind="stable")
        first = ordered.iloc[0]
        name = " ".join(str(first[column]) for column in several if not pd.isna(first[column]))
        _refuse_twins(ordered, name, found)
        made.append(
            Curve(
                model="" if pd.isna(first["model"]) else str(first["model"]),
                arm=name,
                method=str(first["method"]),
                sizes=ordered["size"].to_numpy(dtype=float),
                accuracies=ordered["accuracy"].to_numpy(dtype=float),
                weights=ordered["seeds"].to_numpy(dtype=float),
                rows=tuple(int(i) for i in ordered.index),
            )
        )
    return tuple(made)


def _varies(frame: pd.DataFrame, column: str) -> bool:
    """Whether the arms of one method of one model differ in it."""
    texts = frame.assign(value=frame[column].astype("string").fillna(""))
    return bool((texts.groupby(["model", "method"], dropna=False)["value"].nunique() > 1).any())


def _refuse_twins(rows: pd.DataFrame, arm: str, found: Configurations) -> None:
    twins = rows[rows["size"].duplicated(keep=False)]
    if twins.empty:
        return
    same = twins[twins["size"] == twins.iloc[0]["size"]]
    candidates = ("demonstrations", "adapter", "storage_dtype", *DETAILS, "learning_rate")
    apart = [name for name in candidates if len(set(same[name].astype("string").fillna(""))) > 1]
    raise SpecError(
        f"{found.source}: {arm} has {len(same)} configurations of {same.iloc[0]['size']:g} {found.unit}, which differ "
        f"in {', '.join(apart) or 'nothing that is recorded'}: name that in --by"
    )


def savings(
    found: Configurations, arms: Sequence[Curve], replicates: int, rng: np.random.Generator, items: Items = "these"
) -> tuple[Saving, ...]:
    """The size ratio of every ordered pair of arms of one model.

    The interval is that of the replicates: all arms are drawn anew, made monotone and compared again, so it carries the
    uncertainty of the shared range too. Arms are drawn independently, which is on the safe side for arms that share
    seeds.
    """
    draws = None if np.isnan(found.errors).any() else found.replicates(replicates, rng, items)
    inverted = {}
    for curve in arms:
        values = [isotonic(curve.accuracies, curve.weights)]
        if draws is not None:
            values.extend(isotonic(draws[:, list(curve.rows)], curve.weights))
        inverted[curve.model, curve.arm] = [inverse_curve(curve.sizes, row) for row in values]
    results = []
    known: dict[tuple[str, str, str], list[SizeRatio | None]] = {}
    for test, anchor in permutations(arms, 2):
        if test.model != anchor.model:
            continue
        if (test.model, anchor.arm, test.arm) in known:  # the other way round it is the inverse
            other = known[test.model, anchor.arm, test.arm]
            found_ratios = [None if r is None else replace(r, ratio=1 / r.ratio) for r in other]
        else:
            pairs = zip(inverted[test.model, test.arm], inverted[anchor.model, anchor.arm], strict=True)
            found_ratios = [size_ratio(a, b) for a, b in pairs]
        known[test.model, test.arm, anchor.arm] = found_ratios
        estimate, *drawn = found_ratios
        ratios = np.array([r.ratio for r in drawn if r is not None])
        missing = 1 - len(ratios) / len(drawn) if drawn else None
        low, high, remark = _interval(ratios, missing)
        if estimate is None:
            low, high, remark = None, None, _apart(test, anchor)
        results.append(
            Saving(
                model=test.model,
                test=test.arm,
                anchor=anchor.arm,
                size_ratio=estimate.ratio if estimate else None,
                low=low,
                high=high,
                overlap=estimate is not None,
                accuracy_low=estimate.low if estimate else None,
                accuracy_high=estimate.high if estimate else None,
                no_overlap=missing,
                method=f"Bjøntegaard delta on the monotone curve, PCHIP; {found.method}",
                remark=remark,
            )
        )
    return tuple(results)


def _interval(ratios: Array, missing: float | None) -> tuple[float | None, float | None, str]:
    if missing is None:
        return None, None, "no counts and no spread between seeds, so no interval"
    if missing > _TAIL:
        return None, None, f"the curves share no accuracies in {100 * missing:.0f} % of the replicates: no interval"
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high), ""


def _apart(test: Curve, anchor: Curve) -> str:
    """Why two curves share no accuracies."""
    a, b = (isotonic(c.accuracies, c.weights) for c in (test, anchor))
    for curve, fitted in ((test, a), (anchor, b)):
        if len(fitted) == 1:
            return f"{curve.arm} was tested at one size only, which is no curve"
        if fitted[0] == fitted[-1]:
            return f"{curve.arm} does not rise with size, so no accuracy belongs to one size"
    upper, lower = (test.arm, anchor.arm) if a[0] >= b[-1] else (anchor.arm, test.arm)
    return f"every size of {upper} is more accurate than all of {lower}, so they share no accuracy to compare at"


def at_equal_size(
    found: Configurations, arms: Sequence[Curve], replicates: int, rng: np.random.Generator, items: Items = "these"
) -> tuple[AtSize, ...]:
    """Accuracy of every arm of a model at every size that one of them was tested at and all of them span."""
    draws = None if np.isnan(found.errors).any() else found.replicates(replicates, rng, items)
    results = []
    for model in dict.fromkeys(curve.model for curve in arms):
        own = [curve for curve in arms if curve.model == model]
        least, most = max(c.sizes[0] for c in own), min(c.sizes[-1] for c in own)
        sizes = sorted({float(s) for c in own for s in c.sizes if least <= s <= most})
        for size in sizes:
            for curve in own:
                value = float(_interpolated(curve, isotonic(curve.accuracies, curve.weights), size))
                estimate = Estimate.none(value, seeds := int(curve.weights.min()))
                if draws is not None:
                    drawn = _interpolated(curve, isotonic(draws[:, list(curve.rows)], curve.weights), size)
                    low, high = (float(np.clip(q, 0, 1)) for q in np.quantile(drawn, (0.025, 0.975)))
                    estimate = Estimate(value, low, high, found.over(items), seeds, pooled=found.dispersion is not None)
                results.append(AtSize(model, curve.arm, size, estimate, size in curve.sizes))
    return tuple(results)


def _interpolated(curve: Curve, accuracies: Array, size: float) -> Array:
    """Accuracies (..., n) at one size inside the curve's range, (...)."""
    x, at = np.log10(curve.sizes), np.log10(size)
    right = int(np.clip(np.searchsorted(x, at), 1, max(len(x) - 1, 1)))
    if len(x) == 1:
        return np.asarray(accuracies[..., 0])
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return np.asarray((1 - share) * accuracies[..., right - 1] + share * accuracies[..., right])
