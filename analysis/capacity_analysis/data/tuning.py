"""Honesty of selection: what picking the best of several trials adds by luck, and whether rates were tuned fairly.

A learning rate is chosen on validation items and reported on test items. The best of m trials looks better than it is;
and an optimum at the edge of the rates that were tried is perhaps none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.special import ndtr

from capacity.errors import DataError, SpecError
from capacity.runs import files
from capacity_analysis.data.table import Points

# What is tuned apart: one learning rate for each of these.
ARM = ("model", "task", "demonstrations", "method", "adapter", "trained_parameters", "storage_dtype")


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
    """The learning rates tried for one arm, and what came of them.

    Attributes:
        arm: model, task, method, adapter, trained parameters and storage dtype, those that are known.
        trained_parameters: size of the arm.
        method: its method.
        rates: tried, rising.
        accuracies: mean over seeds at each.
        runs: seeds at each.
        best: the rate of the highest accuracy; of equal ones the smallest.
        at_edge: whether it is the smallest or the largest of those tried; true for a single rate.
        flattery: by how much the best rate's accuracy here exceeds its own expectation if all rates are equal:
            `best_of_bias` × the standard error of such a mean; None where no rate has two seeds.
        model: of the arm; None if it is not known.
        failed: rates at which runs failed; they count as tried and have no accuracy.
    """

    arm: str
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


def rate_trials(points: Points, split: str = "validation") -> tuple[RateTrials, ...]:
    """The rates tried on `split` for every trained arm, in the order of the table. Empty if there are none."""
    if f"rates tried on {split}" not in points.memo:
        points.memo[f"rates tried on {split}"] = _rate_trials(points, split)
    found: tuple[RateTrials, ...] = points.memo[f"rates tried on {split}"]
    return found


def _rate_trials(points: Points, split: str) -> tuple[RateTrials, ...]:
    frame = points.frame
    known = frame[(frame["split"] == split).fillna(False) & frame["learning_rate"].notna()]
    found = []
    for _, rows in known.groupby(list(ARM), dropna=False, sort=False):
        by_rate = rows.groupby("learning_rate")["accuracy"]
        means, runs, spreads = by_rate.mean(), by_rate.count(), by_rate.var(ddof=1).dropna()
        rates = [float(rate) for rate in means.index]
        best = float(means.idxmax())
        error = (float(spreads.mean()) / float(runs.mean())) ** 0.5 if len(spreads) else None
        found.append(
            RateTrials(
                arm=arm_name(rows.iloc[0]),
                trained_parameters=int(rows.iloc[0]["trained_parameters"]),
                method=str(rows.iloc[0]["method"]),
                rates=tuple(rates),
                accuracies=tuple(float(a) for a in means),
                runs=tuple(int(r) for r in runs),
                best=best,
                at_edge=best in (rates[0], rates[-1]),
                flattery=None if error is None else best_of_bias(len(rates)) * error,
                model=None if pd.isna(rows.iloc[0]["model"]) else str(rows.iloc[0]["model"]),
            )
        )
    return tuple(found)


def tuning_trials(folder: Path) -> tuple[RateTrials, ...]:
    """The rates that `capacity sweep` tried in a study, as its `tuning.json` tells; empty if it tuned nothing.

    An arm that failed at every rate is left out.

    Raises:
        DataError: the file cannot be read.
    """
    if not (folder / "tuning.json").exists():
        return ()
    arms, study = files.read_json(folder / "tuning.json"), files.read_json(folder / "study.json")
    try:
        if study["tuning"] is None:  # its file has changed since
            return ()
        seeds = len(study["tuning"]["seeds"])
        return tuple(_tuned(arm, seeds) for arm in arms if arm["learning_rate"] is not None)
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'tuning.json'}: not as `capacity sweep` writes it ({error}): remove it") from None


def _tuned(arm: dict[str, Any], seeds: int) -> RateTrials:
    known = [(float(t["rate"]), float(t["accuracy"])) for t in arm["trials"] if t["accuracy"] is not None]
    return RateTrials(
        arm=f"{arm['model']} {arm['method']} {arm['adapter']} {arm['trained_parameters']}",
        trained_parameters=int(arm["trained_parameters"]),
        method=str(arm["method"]),
        rates=tuple(rate for rate, _ in known),
        accuracies=tuple(accuracy for _, accuracy in known),
        runs=(seeds,) * len(known),
        best=float(arm["learning_rate"]),
        at_edge=bool(arm["at_edge"]),
        flattery=None,
        model=str(arm["model"]),
        failed=tuple(float(t["rate"]) for t in arm["trials"] if t["accuracy"] is None),
    )


def arm_name(row: "pd.Series") -> str:
    """The arm of a row in words, from what is known of it: "abacus-0.9m grpo tinylora 13 bf16"."""
    names = ("model", "method", "adapter", "trained_parameters", "storage_dtype")
    return " ".join(str(row[name]) for name in names if not pd.isna(row[name]))


def edge_remarks(trials: Iterable[RateTrials]) -> list[str]:
    """One sentence for each arm whose best rate may be beaten by one that was not tried."""
    remarks = []
    for t in trials:
        if len(t.rates) == 1:
            remarks.append(f"{t.arm}: one learning rate only, {t.best:g}, was tried.")
        elif t.at_edge:
            side = "largest" if t.best == t.rates[-1] else "smallest"
            remarks.append(f"{t.arm}: the best learning rate, {t.best:g}, is the {side} of {len(t.rates)} tried.")
    return remarks


def reported_rows(points: Points) -> "pd.Series[bool]":
    """Which rows a result may be reported on: not validation, and of each arm the learning rate that validation chose.

    Returns:
        A boolean for each row of the frame.

    Raises:
        SpecError: an arm with several rates and no validation rows to choose by: choosing by the reported rows
            themselves would flatter it.
    """
    frame = points.frame
    keep = (frame["split"] != "validation").fillna(True).astype(bool)
    chosen = {trial.arm: trial.best for trial in rate_trials(points)}
    trained = frame[keep & frame["learning_rate"].notna()]
    distinct = trained.groupby(list(ARM), dropna=False, sort=False)["learning_rate"].transform("nunique")
    for _, rows in trained[distinct > 1].groupby(list(ARM), dropna=False, sort=False):
        rates = sorted({float(rate) for rate in rows["learning_rate"]})
        name = arm_name(rows.iloc[0])
        if chosen.get(name) not in rates:
            raise SpecError(
                f"{points.source}: {name} has {len(rates)} learning rates ({', '.join(f'{r:g}' for r in rates)}) and "
                "no validation rows to choose by: keep the rows of one rate, or add validation rows"
            )
        keep.loc[rows.index[rows["learning_rate"].astype(float) != chosen[name]]] = False
    return keep
