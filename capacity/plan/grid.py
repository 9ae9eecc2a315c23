"""Turns a study file into the specs of its runs. It does not import torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from capacity.errors import CapacityError, SpecError
from capacity.plan.kinds.kind import Size
from capacity.plan.rates import TunedRate, rate_remarks
from capacity.plan.sampling import with_rollouts
from capacity.plan.sizes import size_of
from capacity.plan.specs import base_specs, shipped_rate, shipped_rates, trained_spec, zero_specs
from capacity.plan.study_file import Grid, StudyFile, Tuning
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import Match, RolloutSpec, TaskSpec
from capacity.spec.run import RunSpec

Key = tuple[str, str, Size, Match, int | None, str, Method]


@dataclass(frozen=True)
class GridPoint:
    """A grid point is one model, task and size of a grid. All its methods are tuned alike."""

    grid: Grid
    model: str
    task: TaskSpec
    size: Size
    rollouts: RolloutSpec | None = None

    def spec(self, method: Method, seed: int, rates: Mapping[Method, float], *, validation: bool) -> RunSpec:
        """Returns the spec of one trained run of this grid point."""
        spec = trained_spec(
            self.model,
            self.task,
            method,
            self.size,
            seed,
            self.grid.storage_dtype,
            rates=rates,
            validation=validation,
            match=self.grid.match,
            tokens_per_step=self.grid.tokens_per_step,
            protocol=self.grid.protocol_of(self.task),
        )
        return with_rollouts(spec, self.rollouts)

    def zeros(self) -> list[RunSpec]:
        """Returns the specs of the adapter of zeros at this grid point."""
        grid = self.grid
        found = zero_specs(
            self.model,
            self.task,
            self.size,
            grid.storage_dtype,
            seeds=grid.seeds,
            validation=grid.split == "validation",
            protocol=grid.protocol_of(self.task),
        )
        return [with_rollouts(spec, self.rollouts) for spec in found]

    @property
    def trained_methods(self) -> tuple[Method, ...]:
        """Returns the methods of this grid point that train."""
        return tuple(method for method in self.grid.methods if METHODS[method].trains)

    @property
    def tuned_methods(self) -> tuple[Method, ...]:
        """Returns the methods whose learning rates must be known to train all methods of this grid point.

        A control trains at the rate of the method that it controls for.
        """
        needed = (phase for m in self.grid.methods for phase in METHODS[m].phases)
        return tuple(dict.fromkeys(METHODS[m].rate_from for m in needed))


def grid_points(study: StudyFile, *, tuned: bool | None = None) -> Iterator[GridPoint]:
    """Yields all grid points in the order of the file.

    If `tuned` is True, it yields only those with tuned rates; if it is False, only the others.

    Raises:
        SpecError: if a model does not have one of the sizes.
    """
    for number, grid in enumerate(study.grids, start=1):
        if tuned is not None and (grid.rates == "tuned") != tuned:
            continue
        for model in grid.models:
            for task in grid.task_specs:
                for choice in grid.sizes:
                    try:
                        size = size_of(model, choice, grid.storage_dtype)
                        yield GridPoint(grid, model, task, size, study.rollouts)
                    except CapacityError as error:
                        raise SpecError(f"grid {number}: {error}") from None


def tuned_points(study: StudyFile) -> list[GridPoint]:
    """Returns the grid points whose rates are tuned, one of each tuning: storage dtypes share the rates of the first.

    Raises:
        SpecError: a size that a model does not have, or grids that try different rates for one tuning.
    """
    found: dict[tuple[Key, tuple[Method, ...]], GridPoint] = {}
    for point in grid_points(study, tuned=True):
        first = found.setdefault((key(point, "sft"), point.tuned_methods), point)
        if first.grid.try_rates != point.grid.try_rates:
            raise SpecError(
                f"two grids tune {arm_name(point, point.tuned_methods[0])} with different try_rates: give both the same"
            )
    return list(found.values())


def first_rates(point: GridPoint, tuning: Tuning) -> tuple[float, ...]:
    """Returns the learning rates that are tried first in a grid point."""
    return point.grid.try_rates or tuning.rates


def trial_specs(point: GridPoint, method: Method, rate: float, tuning: Tuning) -> list[RunSpec]:
    """Returns the tuning runs of one method of a grid point at one learning rate. They are evaluated on validation."""
    return [point.spec(method, seed, {method: rate}, validation=True) for seed in tuning.seeds]


def result_specs(study: StudyFile, chosen: Mapping[Key, float]) -> list[RunSpec]:
    """Returns the specs of the reported runs, each once.

    Args:
        study: the study.
        chosen: the tuned rates by `key`. Methods of a grid point without a tuned rate are left out.
    """
    specs: list[RunSpec] = []
    for point in grid_points(study):
        for method in point.trained_methods:
            for rates in _rates(point, method, chosen):
                validation = point.grid.split == "validation"
                specs += [point.spec(method, seed, rates, validation=validation) for seed in point.grid.seeds]
        specs += point.zeros() if "zero" in point.grid.methods else []
    for grid in study.grids:
        if grid.base:
            for model in grid.models:
                for task in grid.task_specs:
                    seeds = sorted({seed for g in study.grids if model in g.models for seed in g.seeds})
                    validation = grid.split == "validation"
                    base = base_specs(model, task, grid.protocol_of(task), seeds=seeds, validation=validation)
                    specs += [with_rollouts(spec, study.rollouts) for spec in base]
    return unique(specs)


def _rates(point: GridPoint, method: Method, chosen: Mapping[Key, float]) -> list[dict[Method, float]]:
    """Returns the learning rates for a method of a grid point: one set for each of its runs of one seed."""
    rates, parts = point.grid.rates, METHODS[method].phases
    if rates == "shipped":
        return [{p: shipped_rate(point.model, point.task, p, point.size).learning_rate for p in parts}]
    if rates == "tuned":
        keys = {p: key(point, METHODS[p].rate_from) for p in parts}
        return [{p: chosen[k] for p, k in keys.items()}] if all(k in chosen for k in keys.values()) else []
    given = rates if isinstance(rates, dict) else dict.fromkeys(parts, rates)
    missing = [p for p in parts if p not in given]
    if missing:
        raise SpecError(f"rates name none for {missing[0]}")
    if len(parts) == 1:
        return [{method: rate} for rate in given[method]]
    first, second = parts
    return [{first: a, second: b} for a in given[first] for b in given[second]]


def key(point: GridPoint, method: Method) -> Key:
    """Returns the key of a tuned rate: all that the rate depends on.

    Demonstrations count only for sft, because no other method sees them.
    """
    task = point.task if method == "sft" else point.task.unseen()
    changes = point.grid.protocol.model_dump_json()
    return point.model, task.label, point.size, point.grid.match, point.grid.tokens_per_step, changes, method


def arm_name(point: GridPoint, method: Method) -> str:
    """One method of a grid point in words: "grpo (abacus-3m, tinylora of 112)"; where it sees demonstrations, which.

    The adapter has the name of its rates, so an adapter with a chosen projection or another scaling is told apart.
    """
    size = point.size
    shown = f", {point.task.style}" if METHODS[method].sees_demonstrations else ""
    return f"{method} ({point.model}, {size.tuned_as} of {size.trained_parameters:,}{shown})"


def shipped_remarks(study: StudyFile) -> tuple[str, ...]:
    """What to know of the shipped rates that a study takes, a sentence each."""
    rates: dict[str, TunedRate] = {}
    for point in grid_points(study, tuned=False):
        if point.grid.rates == "shipped":
            found = shipped_rates(point.model, point.task, point.grid.methods, point.size, {})
            rates |= {arm_name(point, method): rate for method, rate in found.items()}
    return rate_remarks(rates)


@dataclass(frozen=True)
class PlannedRuns:
    """What a sweep will run, as far as it is known before anything is tuned.

    Attributes:
        trials: the runs of the tuning at the rates that are tried first.
        results: the reported runs whose rates are known.
        at_tuned_rates: how many reported runs there are besides, at most.
    """

    trials: tuple[RunSpec, ...]
    results: tuple[RunSpec, ...]
    at_tuned_rates: int


def planned_runs(study: StudyFile) -> PlannedRuns:
    """The runs of a study before it is tuned.

    Raises:
        SpecError: a size that a model does not have, or a method without a rate.
    """
    tuned, tuning = list(grid_points(study, tuned=True)), study.tuning
    trials: list[RunSpec] = []
    if tuning is not None:
        every = ((c, m, r) for c in tuned_points(study) for m in c.tuned_methods for r in first_rates(c, tuning))
        trials = unique(s for c, m, r in every for s in trial_specs(c, m, r, tuning))
    later = sum(len(c.trained_methods) * len(c.grid.seeds) for c in tuned)
    return PlannedRuns(tuple(trials), tuple(result_specs(study, {})), later)


def unique(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Returns each spec once, in the order of first occurrence."""
    return list({spec.identity: spec for spec in specs}.values())


def extended(rates: Sequence[float], best: Iterable[int]) -> tuple[float, ...]:
    """Returns the rates with one more at each end where the best rate of some method lies.

    The new rate is as far from its neighbour, as a ratio, as the next two are from each other.

    Args:
        rates: the rates in rising order.
        best: for each method, the index of its best rate.
    """
    grown, ends = list(rates), set(best)
    if 0 in ends:
        grown.insert(0, float(f"{rates[0] ** 2 / rates[1]:.2g}"))
    if len(rates) - 1 in ends:
        grown.append(float(f"{rates[-1] ** 2 / rates[-2]:.2g}"))
    return tuple(grown)
