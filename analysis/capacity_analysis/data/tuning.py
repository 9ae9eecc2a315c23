"""Honesty of selection: what picking the best of several trials adds by luck, and whether rates were tuned fairly.

A learning rate is chosen on validation items and reported on test items. The best of m trials looks better than it is;
and an optimum at the edge of the rates that were tried is perhaps none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.special import ndtr

from capacity.errors import DataError, SpecError, unknown
from capacity.plan.rates import best_rate
from capacity.runs import files
from capacity.runs.cell import differing
from capacity_analysis.data.recipes import keys, recipes, said, short
from capacity_analysis.data.table import Points

# Cells that differ in these fields only are one tuning: trials on validation, and the results at the rate they chose.
TUNED = ("learning_rate", "split", "evaluation.items")


def best_of_bias(trials: int) -> float:
    """Expectation of the largest of m standard normal numbers: by how many SD the best of m equal trials flatters.

    0 for m = 1, .564 for 2, .846 for 3, 1.163 for 5, 1.539 for 10.

    Raises:
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError("at least one trial")
    from scipy import integrate  # a quarter of a second that reading a table need not wait for

    def above(z: float) -> float:
        return float(1 - ndtr(z) ** trials - ndtr(-z) ** trials)

    value, _ = integrate.quad(above, 0, 40, epsabs=1e-12)  # ∫ z d(Φ^m), by parts over both halves
    return float(value)


@dataclass(frozen=True)
class RateTrials:
    """The learning rates tried in one tuning, and what came of them.

    Attributes:
        name: what was tuned, in words. It has the known ones of model, method, adapter, trained parameters and storage
            dtype, and whatever else tells it from other tunings.
        trained_parameters: of the update.
        method: that trained.
        rates: tried, rising.
        accuracies: mean over seeds at each.
        runs: seeds at each.
        best: the rate of the highest accuracy; of equal ones the smallest.
        at_edge: whether it is the smallest or the largest of those tried; true for a single rate.
        flattery: by how much the best rate's accuracy here exceeds its own expectation if all rates are equal. That is
            `best_of_bias` × the standard error of such a mean; None where no rate has two seeds.
        model: that was trained; None if it is not known.
        failed: rates at which runs failed; they count as tried and have no accuracy.
    """

    name: str
    trained_parameters: int
    method: str
    rates: tuple[float, ...]
    accuracies: tuple[float, ...]
    runs: tuple[int, ...]
    best: float
    at_edge: bool
    flattery: float | None
    model: str | None = None
    failed: tuple[float, ...] = ()

    @property
    def tried(self) -> int:
        """How many rates were tried."""
        return len(self.rates) + len(self.failed)

    @property
    def equal_trials(self) -> bool:
        """Whether every rate was tried equally often."""
        return len(set(self.runs)) == 1


def rate_trials(points: Points) -> tuple[RateTrials, ...]:
    """The rates tried on validation in every tuning, in the order of the table. Empty if there are none."""
    return tuple(_trials(points).values())


def _trials(points: Points) -> dict[str, RateTrials]:
    """By what the cells of a tuning have in common."""
    if "trials" not in points.memo:
        frame = points.frame
        tried = frame[(frame["split"] == "validation").fillna(False) & frame["learning_rate"].notna()]
        tunings = dict(list(tried.groupby(keys(points, *TUNED), sort=False)))
        names = _names(points, [rows.index[0] for rows in tunings.values()])
        points.memo["trials"] = {
            str(key): _rate_trials(name, rows) for name, (key, rows) in zip(names, tunings.items(), strict=True)
        }
    found: dict[str, RateTrials] = points.memo["trials"]
    return found


def _rate_trials(name: str, rows: pd.DataFrame) -> RateTrials:
    by_rate = rows.groupby("learning_rate")["accuracy"]
    means, runs, spreads = by_rate.mean(), by_rate.count(), by_rate.var(ddof=1).dropna()
    rates, first = [float(rate) for rate in means.index], rows.iloc[0]
    index = best_rate([float(mean) for mean in means])
    assert index is not None
    best = rates[index]
    error = (float(spreads.mean()) / float(runs.mean())) ** 0.5 if len(spreads) else None
    return RateTrials(
        name=name,
        trained_parameters=int(first["trained_parameters"]),
        method=str(first["method"]),
        rates=tuple(rates),
        accuracies=tuple(float(a) for a in means),
        runs=tuple(int(r) for r in runs),
        best=best,
        at_edge=best in (rates[0], rates[-1]),
        flattery=None if error is None else best_of_bias(len(rates)) * error,
        model=None if pd.isna(first["model"]) else str(first["model"]),
    )


def _names(points: Points, rows: Sequence[int]) -> list[str]:
    """What was tuned: "abacus-0.9m grpo tinylora 13 bf16", and what tells it from others of that name."""
    known, usual = recipes(points), ("model", "method", "adapter", "trained_parameters", "storage_dtype")
    names = [" ".join(str(known[row][field]) for field in usual if field in known[row]) for row in rows]
    found = []
    for row, name in zip(rows, names, strict=True):
        alike = [known[other] for other, same in zip(rows, names, strict=True) if same == name]
        apart = [field for field in differing(alike) if field in known[row] and field not in TUNED]
        found.append(" ".join([name, *(f"{short(points, field)}={said(known[row][field])}" for field in apart)]))
    return found


def tuning_trials(folder: Path) -> tuple[RateTrials, ...]:
    """The rates that `capacity sweep` tried in a study, as its `tuning.json` tells; empty if it tuned nothing.

    A tuning that failed at every rate is left out.

    Raises:
        DataError: the file cannot be read.
    """
    if not (folder / "tuning.json").exists():
        return ()
    tunings, study = files.read_json(folder / "tuning.json"), files.read_json(folder / "study.json")
    try:
        if study["tuning"] is None:  # its file has changed since
            return ()
        seeds = len(study["tuning"]["seeds"])
        return tuple(_tuned(tuning, seeds) for tuning in tunings if tuning["learning_rate"] is not None)
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'tuning.json'}: not as `capacity sweep` writes it ({error}): remove it") from None


def _tuned(tuning: dict[str, Any], seeds: int) -> RateTrials:
    known = [(float(t["rate"]), float(t["accuracy"])) for t in tuning["trials"] if t["accuracy"] is not None]
    return RateTrials(
        name=f"{tuning['model']} {tuning['method']} {tuning['adapter']} {tuning['trained_parameters']}",
        trained_parameters=int(tuning["trained_parameters"]),
        method=str(tuning["method"]),
        rates=tuple(rate for rate, _ in known),
        accuracies=tuple(accuracy for _, accuracy in known),
        runs=(seeds,) * len(known),
        best=float(tuning["learning_rate"]),
        at_edge=bool(tuning["at_edge"]),
        flattery=None,
        model=str(tuning["model"]),
        failed=tuple(float(t["rate"]) for t in tuning["trials"] if t["accuracy"] is None),
    )


def edge_remarks(trials: Iterable[RateTrials]) -> list[str]:
    """One sentence for each tuning whose best rate may be beaten by one that was not tried."""
    remarks = []
    for t in trials:
        if len(t.rates) == 1:
            remarks.append(f"{t.name}: one learning rate only, {t.best:g}, was tried.")
        elif t.at_edge:
            side = "largest" if t.best == t.rates[-1] else "smallest"
            remarks.append(f"{t.name}: the best learning rate, {t.best:g}, is the {side} of {len(t.rates)} tried.")
    return remarks


def reported_rows(points: Points) -> "pd.Series[bool]":
    """Which rows a result may be reported on: not validation, and of each tuning the rate that validation chose.

    Returns:
        A boolean for each row of the frame.

    Raises:
        SpecError: as `at_chosen_rates`.
    """
    return at_chosen_rates(points, (points.frame["split"] != "validation").fillna(True).astype(bool))


def at_chosen_rates(
    points: Points, answers: "pd.Series[bool]", wanted: Mapping[str, float] | None = None
) -> "pd.Series[bool]":
    """Of some rows those at one learning rate in each tuning: the wanted one, or the best on the validation rows.

    Args:
        points: with the rows and the validation rows.
        answers: the rows.
        wanted: rates by method, or under "" for all.

    Raises:
        SpecError: a rate is wanted of a method that has no rows, or a tuning lacks the wanted rate. Or a tuning has
            several rates and no validation rows to choose by: a choice by the answers themselves would flatter it.
    """
    keep, frame = answers.copy(), points.frame
    trained = frame[answers & (frame["trained_parameters"] > 0)]
    known = sorted(set(frame.loc[frame["trained_parameters"] > 0, "method"].astype(str)))
    for method in wanted or ():
        if method and method not in known:
            raise unknown("method with rows", method, known)
    for key, rows in trained.groupby(keys(points, *TUNED)[trained.index], sort=False):
        rates = sorted({float(rate) for rate in rows["learning_rate"].dropna()})
        method = str(rows["method"].iloc[0])
        asked = None if wanted is None else wanted.get(method, wanted.get(""))
        if not rates or (asked is None and len(rates) == 1):
            continue
        rate = _best(points, str(key), rows, rates) if asked is None else asked
        at_rate = (rows["learning_rate"].sub(rate).abs() <= 1e-9 * rate).fillna(False)
        if not at_rate.any():
            what = f"{method} at {rows['trained_parameters'].iloc[0]} parameters"
            raise SpecError(f"{points.source}: {what} has no runs at rate {rate:g}; it has {_listed(rates)}")
        keep.loc[rows.index[~at_rate]] = False
    return keep


def _best(points: Points, key: str, rows: pd.DataFrame, rates: Sequence[float]) -> float:
    """The rate that validation chose, which must be there."""
    trials = _trials(points).get(key)
    if trials is not None and trials.best in rates:
        return trials.best
    why = (
        "no validation rows to choose by"
        if trials is None
        else f"the best on validation, {trials.best:g}, is not there"
    )
    (name,) = _names(points, rows.index[:1].tolist())
    raise SpecError(
        f"{points.source}: {name} has {len(rates)} learning rates ({_listed(rates)}) and {why}: choose one with "
        f"--where learning_rate={rates[0]:g}; the best of the reported rows would be biased upwards"
    )


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
