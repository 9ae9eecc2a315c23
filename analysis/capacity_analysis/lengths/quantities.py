"""What is measured of a run, and the mean of it over the seeds of a cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from capacity.runs.study import Run
from capacity.spec.parts import TrainingSpec
from capacity_analysis.data.absent import Absent

Category = Literal["held-out", "first pass", "rewards", "update"]


@dataclass(frozen=True)
class Quantity:
    """One quantity: its key, what it is in words, its unit, and the table that it stands in."""

    key: str
    words: str
    unit: str
    category: Category


@dataclass(frozen=True)
class Facts:
    """What the quantities of one run are computed from.

    Attributes:
        run: the run of a trained update.
        train_items: items in the train split of its task.
        configurations: learning rates among which its own was chosen.
        epsilon: loss of the surplus description length, bits a token; None for the run's final held-out loss.
    """

    run: Run
    train_items: int | Absent
    configurations: int | Absent
    epsilon: float | None

    @property
    def training(self) -> TrainingSpec:
        """How the run was trained."""
        assert self.run.spec.training is not None
        return self.run.spec.training

    @property
    def size(self) -> int:
        """Trained parameters."""
        return self.run.result.trained_parameters


@dataclass(frozen=True)
class AtLeast:
    """A lower bound of a quantity that the run does not tell exactly."""

    value: float


@dataclass(frozen=True)
class Estimated:
    """A quantity with an error that all seeds share, because they share what it was measured on.

    Attributes:
        value: the quantity.
        error: the standard error that the seeds share; None if it is not recorded.
        df: its degrees of freedom.
    """

    value: float
    error: float | None
    df: int

    def over(self, number: float) -> "Estimated":
        """Returns the quantity divided by a number."""
        return Estimated(self.value / number, None if self.error is None else self.error / number, self.df)


Found = float | AtLeast | Estimated | Absent  # a quantity of one run


@dataclass(frozen=True)
class Measured:
    """A mean over seeds with Student's interval.

    Attributes:
        estimate: the mean.
        low, high: ends of its two-sided 95 % interval for the mean over fresh seeds; None with one seed.
        n: number of seeds.
        at_least: the mean is a lower bound, as that of some seeds is.
        shared: the standard error that all seeds share, which the interval holds; None if there is none.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    at_least: bool = False
    shared: float | None = None

    @property
    def label(self) -> str:
        """What the interval is for: "95 % over fresh seeds, 3 seeds"."""
        if self.n == 1:
            return "one seed, no interval"
        more = "" if self.shared is None else " and held-out demonstrations"
        return f"95 % over fresh seeds{more}, {self.n} seeds"


Value = Measured | Absent  # a quantity of a cell


def over_seeds(values: Sequence[Found]) -> Value:
    """The mean over seeds; absent if one seed is, because a mean over the others would be one of other seeds.

    The variance of the mean is that between seeds over their number, and the mean square of the errors that the seeds
    share. The latter is not divided by the number of seeds. The degrees of freedom are Satterthwaite's.
    """
    absent = next((value for value in values if isinstance(value, Absent)), None)
    if absent is not None:
        return absent
    numbers = np.array([v if isinstance(v, float | int) else v.value for v in values], dtype=np.float64)  # type: ignore[union-attr]
    at_least = any(isinstance(value, AtLeast) for value in values)
    estimated = [value for value in values if isinstance(value, Estimated)]
    errors = [value.error for value in estimated if value.error is not None]
    n, mean = len(numbers), float(numbers.mean())
    shared = float(np.mean(np.square(errors))) if len(errors) == n else 0.0
    error = shared**0.5 if shared else None
    if n == 1:
        return Measured(mean, None, None, 1, at_least, error)
    own = float(numbers.var(ddof=1)) / n
    df = n - 1.0
    if shared:
        df = (own + shared) ** 2 / (own**2 / (n - 1) + shared**2 / min(value.df for value in estimated))
    half = float(stdtrit(df, 0.975)) * (own + shared) ** 0.5
    return Measured(mean, mean - half, mean + half, n, at_least, error)
