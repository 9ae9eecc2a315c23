"""What an adaptive design is asked, what it knows, and what it wants next."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from capacity_analysis.types import Array


@dataclass(frozen=True, order=True)
class Ask:
    """One run that a design asks for.

    Attributes:
        method: what trains.
        size: the place of its size among the candidates.
        rate: the place of its learning rate among the rates.
        seed: of the run; trials on validation and results on test have different ones.
        validation: it is a trial on validation; otherwise its result is reported.
    """

    method: str
    size: int
    rate: int
    seed: int
    validation: bool


Results = Mapping[Ask, float | None]  # accuracy of each run that was asked for; None if it failed


@dataclass(frozen=True)
class Goal:
    """When a study knows enough.

    Attributes:
        half_width: of the interval of each threshold, in decades; None if the ratio is asked for.
        decide: the ratio of thresholds that the interval of sft : grpo must exclude; None if widths are asked for.
        most_runs: the largest number of trained runs.
    """

    half_width: float | None
    decide: float | None
    most_runs: int


@dataclass(frozen=True)
class Setting:
    """What does not change while a study is made.

    Attributes:
        log_sizes: log10 of the trained parameters of every candidate size, rising.
        methods: those that are compared.
        rates: how many learning rates may be tried at each size; 1 if the rate is given.
        target: an accuracy; None if a share of the gain is asked for.
        gain: the share of the gain from the base up to the accuracy of `ceiling` at the largest size.
        ceiling: the method whose largest update is the ceiling.
        items: how many validation items a run answers.
        goal: when to stop.
        batch: how many runs are made at a time.
    """

    log_sizes: Array
    methods: tuple[str, ...]
    rates: int
    target: float | None
    gain: float
    ceiling: str
    items: int
    goal: Goal
    batch: int


@dataclass(frozen=True)
class Measured:
    """The intervals that the thresholds of this project have on all results so far, in log10 of a size.

    Attributes:
        thresholds: the interval of each method; an end is infinite where the interval is open.
        ratio: the interval of log10 of sft : grpo; None if the two are not compared.
        believed: for each method, whether a Hill curve describes its sizes.
    """

    thresholds: Mapping[str, tuple[float, float]]
    ratio: tuple[float, float] | None = None
    believed: Mapping[str, bool] = field(default_factory=dict)

    @property
    def halves(self) -> dict[str, float]:
        """Half the width of each threshold's interval in decades."""
        return {m: (high - low) / 2 for m, (low, high) in self.thresholds.items()}


@dataclass(frozen=True)
class Batch:
    """Runs to make next, as many of each method, and why."""

    runs: tuple[Ask, ...]
    why: str


@dataclass(frozen=True)
class Stop:
    """Nothing more is made; `why` says whether the goal is reached."""

    why: str
    reached: bool
