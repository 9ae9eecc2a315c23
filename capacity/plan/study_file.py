"""A study file holds the question of a study, and the grids of runs that answer it. This module does not import torch.

This is an example of a study file:

    name = "abacus-sizes"
    question = "How small an update does each method need?"

    [tuning]                      # rates = "tuned": best of these on validation, per method, size, model and task
    rates = [1e-4, 1e-3, 1e-2]

    [[grids]]
    models = ["abacus-0.9m"]
    methods = ["sft", "rft", "grpo"]
    sizes = [{ budget = 1 }, { budget = 13 }, { adapter = "full" }]
    rates = "tuned"
    seeds = 3
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from capacity.errors import CapacityError, DataError, MissingPathError, SpecError, unknown
from capacity.plan.executors import Executed
from capacity.plan.models import check_trainable, resolve
from capacity.plan.pairs import check_pairs
from capacity.plan.protocols import PROTOCOLS, Protocol
from capacity.plan.sizes import SizeChoice
from capacity.spec.adapters import StorageDtype
from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen
from capacity.spec.methods import METHODS, NAMED, TRAINED, Method
from capacity.spec.parts import Draws, Match, RolloutSpec, Seed, TaskSpec
from capacity.tasks.catalog import parse_task

Rate = Annotated[float, Field(gt=0)]
RateSource = Literal["shipped", "tuned"]
_MOST_SEEDS = 10_000


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int | float | str) and not isinstance(value, bool) else value


def _seeds(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 1 <= value <= _MOST_SEEDS:
        raise ValueError(f"{value} seeds: a number of seeds lies between 1 and {_MOST_SEEDS:,}")
    return tuple(range(value))


def once(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Refuses an entry that stands twice in a list. It would be one run, and look like two."""
    for place, value in enumerate(values or ()):
        if value in (values or ())[:place]:
            raise ValueError(f"{_written(value)} stands there twice: each entry counts once, so leave one out")
    return values


def _written(value: Any) -> str:
    return str(value.model_dump(exclude_defaults=True)) if isinstance(value, Frozen) else str(value)


def _readable_rates(value: Any) -> Any:
    """Says what is wrong with rates of any form. The union of their types would speak of one form alone."""
    if isinstance(value, str):
        if value not in get_args(RateSource):
            raise unknown("source of rates", value, get_args(RateSource))
        return value
    for method in value if isinstance(value, dict) else ():
        if method not in TRAINED:
            raise unknown("method", str(method), TRAINED)
    for given in value.values() if isinstance(value, dict) else [value]:
        rates = tuple(given) if isinstance(given, list | tuple) else (given,)
        for one in rates or ([],):
            number = isinstance(one, int | float) and not isinstance(one, bool)
            if not number or not math.isfinite(one) or one <= 0:
                raise ValueError(f'{one!r} is no learning rate: give "shipped", "tuned", or numbers above 0')
        once(rates)
    return value


Rates = Annotated[tuple[Rate, ...], BeforeValidator(_several), Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_seeds), AfterValidator(once), Field(min_length=1)]


def rising(rates: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Refuses rates to try that are too few, or do not rise."""
    if rates is not None and (len(rates) < 2 or list(rates) != sorted(set(rates))):
        raise ValueError("rates to try are two or more, rising, each once")
    return rates


class ProtocolChanges(Frozen):
    """These settings replace those of the task's shipped protocol. None leaves a setting as it is."""

    steps: PositiveInt | None = None
    warmup_steps: NonNegativeInt | None = None
    prompts_per_step: PositiveInt | None = None
    samples_per_prompt: Annotated[int, Field(ge=2)] | None = None
    test_items: PositiveInt | None = None
    validation_items: PositiveInt | None = None
    evaluation_temperature: Annotated[float, Field(ge=0)] | None = None
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...] | None, AfterValidator(once)] = None
    draws: Draws | None = None

    def applied(self, protocol: Protocol) -> Protocol:
        """Returns `protocol` with these changes."""
        changes = {name: getattr(self, name) for name in ProtocolChanges.model_fields}
        return replace(protocol, **{name: value for name, value in changes.items() if value is not None})


class Tuning(Frozen):
    """Says how `rates = "tuned"` finds a learning rate: the best on validation, with seeds that no result uses.

    Every method tries the same rates at a size. If the best rate of some method lies at the edge, one more rate is
    added there for all methods. This happens at most `extend` times.
    """

    rates: Annotated[tuple[Rate, ...], AfterValidator(rising)]
    seeds: Annotated[tuple[Seed, ...], AfterValidator(once), Field(min_length=1)] = (1000,)
    extend: NonNegativeInt = 2


class Grid(Frozen):
    """A grid is all combinations of its lists, under one protocol.

    Attributes:
        rates: "shipped" (tuned for the embedded models) or "tuned" (see `Tuning`). A number or a list of numbers holds
            for all methods. A table has an entry for each method.
        try_rates: for rates "tuned", the rates to try instead of those of [tuning].
        seeds: the number of seeds, counted from 0, or the list of seeds.
        tokens_per_step: the number of completion tokens that a step trains on, for matching "tokens".
        base: True to evaluate also the untrained model at every temperature of the protocol.
        protocol: the changes of the shipped protocol.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], AfterValidator(once), Field(min_length=1)] = ("abacus",)
    methods: Annotated[tuple[Method, ...], AfterValidator(once)] = ()
    sizes: Annotated[tuple[SizeChoice, ...], AfterValidator(once)] = ()
    rates: Annotated[RateSource | Rates | dict[Method, Rates], BeforeValidator(_readable_rates)] = "shipped"
    try_rates: Annotated[tuple[Rate, ...] | None, AfterValidator(rising)] = None
    seeds: Seeds = (0, 1, 2)
    storage_dtype: StorageDtype = "bf16"
    match: Match = "prompts"
    tokens_per_step: PositiveInt | None = None
    split: Literal["test", "validation"] = "test"
    base: bool = True
    protocol: ProtocolChanges = ProtocolChanges()

    @field_validator("models")
    @classmethod
    def _known_models(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(resolve(name) for name in models)
        for alias in found:
            check_trainable(alias)
        once(found)
        return found

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, methods: Any) -> Any:
        for method in methods if isinstance(methods, list | tuple) else ():
            if method not in NAMED:
                raise unknown("method", str(method), NAMED)
        return methods

    @property
    def task_specs(self) -> tuple[TaskSpec, ...]:
        """Returns the specs of the grid's tasks."""
        return tuple(parse_task(text) for text in self.tasks)

    def protocol_of(self, task: TaskSpec) -> Protocol:
        """Returns the protocol of a task in this grid."""
        return self.protocol.applied(PROTOCOLS[task.name])


def _folder_name(name: str) -> str:
    """Refuses what is more than the name of a folder, such as a path."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"{name!r} cannot name the folder of a study: use letters, digits and . _ - with no dot or dash first"
        )
    return name


StudyName = Annotated[str, AfterValidator(_folder_name)]


class StudyFile(Executed):
    """A study file states a question and lists the grids of runs that answer it.

    Attributes:
        name: the name of the study, and of its folder.
        predictions: what the authors expect, written down before the study is run.
        design: "grid". Files with an adaptive design are of another form (`capacity.plan.adaptive_file`).
        tuning: how learning rates are tuned; None if no grid has tuned rates.
        rollouts: the engine that samples in all runs; None for the trainer's own model.
        together: the largest number of runs on one base that share their passes. It changes no result.
        mixed_projections: True to allow two methods that have no projection in common at a size.

    `executor`, `devices` and `ray` say where the runs are made; see `capacity.plan.executors`.
    """

    name: StudyName
    question: str = ""
    predictions: tuple[str, ...] = ()
    design: Literal["grid"] = "grid"
    tuning: Tuning | None = None
    rollouts: RolloutSpec | None = None
    together: PositiveInt | None = None
    mixed_projections: bool = False
    grids: Annotated[tuple[Grid, ...], Field(min_length=1)]


def read_study_file(path: Path) -> StudyFile:
    """Reads a study file and checks it.

    Raises:
        DataError: if the file cannot be read, or is not TOML.
        SpecError: if a field is unknown, missing or out of range. The message names it.
    """
    return parse_study(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Returns what a study file says, unchecked.

    Raises:
        DataError: if the file cannot be read, or is not TOML.
    """
    if not path.exists():
        raise MissingPathError(f"{path}: no such study file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise DataError(f"{path}: cannot be read: its lists or tables are nested too deeply") from None


def parse_study(raw: Mapping[str, Any], where: str) -> StudyFile:
    """A study from what its file says, checked. `where`: what errors call it.

    Raises:
        SpecError: a field is unknown, missing or out of range; it is named.
    """
    if raw.get("design") == "adaptive":
        raise SpecError(f"{where}: its design is adaptive, so its runs are not known beforehand: use capacity sweep")
    try:
        study = StudyFile.model_validate(raw)
        for number, grid in enumerate(study.grids, start=1):
            _check(grid, study, f"grid {number}")
        if not study.mixed_projections:
            check_pairs(study.grids)
    except ValidationError as error:
        raise SpecError(f"{where}: {fault_of(error, StudyFile)}") from None
    except CapacityError as error:
        raise SpecError(f"{where}: {error}") from None
    return study


def _check(grid: Grid, study: StudyFile, where: str) -> None:
    """Checks what depends on several fields of a grid, or on the study around it.

    Raises:
        SpecError: if fields contradict each other.
    """
    if bool(grid.methods) != bool(grid.sizes):
        raise SpecError(f"{where}: methods and sizes go together")
    if not grid.methods and not grid.base:
        raise SpecError(f"{where}: no methods and no base: it has no runs")
    if grid.rates == "tuned" and study.tuning is None:
        raise SpecError(f'{where}: rates = "tuned" needs a [tuning] table with the rates to try')
    if grid.try_rates is not None and grid.rates != "tuned":
        raise SpecError(f'{where}: try_rates belongs to rates = "tuned"')
    if grid.rates == "tuned" and grid.split != "test":
        raise SpecError(f"{where}: tuned rates are chosen on validation, so the runs must be of split test")
    if isinstance(grid.rates, tuple | dict) and grid.split == "test":
        several = grid.rates if isinstance(grid.rates, tuple) else max(grid.rates.values(), key=len)
        if len(several) > 1:
            raise SpecError(
                f'{where}: several rates on the test split invite choosing the best there: use split = "validation", '
                'or rates = "tuned"'
            )
    if study.tuning is not None and set(study.tuning.seeds) & set(grid.seeds) and grid.rates == "tuned":
        raise SpecError(f"{where}: its seeds and those of [tuning] overlap: results need fresh seeds")
    for task in grid.task_specs:
        if task.name not in PROTOCOLS:
            raise SpecError(f"{where}: task {task.name} has no shipped protocol")
        _check_steps(grid, grid.protocol_of(task), where)


def _check_steps(grid: Grid, protocol: Protocol, where: str) -> None:
    """Checks that the steps of a protocol have room for its warm-up, in each phase of each method.

    Raises:
        SpecError: if they do not.
    """
    for method in grid.methods:
        if not METHODS[method].trains:
            continue
        steps = protocol.steps // len(METHODS[method].phases)
        if steps < 1:
            raise SpecError(f"{where}: {protocol.steps} steps: {method} takes at least one step in each of its phases")
        if protocol.warmup_steps > steps:
            raise SpecError(
                f"{where}: {protocol.warmup_steps} warmup_steps in {steps} steps of {method}: "
                "the learning rate would never be reached"
            )
