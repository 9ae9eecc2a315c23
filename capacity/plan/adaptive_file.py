"""A study file whose design is adaptive: it says what is to be known, and the runs follow from what is found.

This is an example of such a file:

    name = "abacus-adaptive"
    design = "adaptive"
    model = "abacus-0.2m"
    methods = ["sft", "grpo"]
    sizes = { smallest = 1, largest = 1000 }
    gain = 0.8
    half_width = 0.25             # decades; or decide = 10
    most_runs = 40
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from capacity.errors import BudgetError, CapacityError, SpecError
from capacity.plan.executors import Executed
from capacity.plan.grid import GridPoint
from capacity.plan.models import check_trainable, resolve
from capacity.plan.protocols import PROTOCOLS
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import shipped_rate
from capacity.plan.study_file import (
    Grid,
    ProtocolChanges,
    Rate,
    StudyFile,
    StudyName,
    once,
    parse_study,
    read_toml,
    rising,
)
from capacity.spec.adapters import StorageDtype
from capacity.spec.faults import fault_of
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import RolloutSpec
from capacity.tasks.catalog import parse_task

LEAST_SIZES = 5  # a Hill curve has four parameters, and its test of fit needs one size more
DEFAULT_GAIN, DEFAULT_HALF_WIDTH = 0.8, 0.25
Share = Annotated[float, Field(gt=0, lt=1)]


def _readable_rates(value: Any) -> Any:
    """Says what is wrong with rates of any form. The union of their types would speak of one form alone."""
    if value == "shipped":
        return value
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in given):
        raise ValueError(f'{value!r}: give "shipped", or the learning rates to try')
    return rising(tuple(map(float, given)))


class SizeRange(SizeChoice):
    """The sizes that a design may choose from, as budgets in trained parameters.

    All of them share the other options of a size, for example a chosen projection.

    Attributes:
        smallest, largest: the ends of the range.
        per_decade: how many sizes there are between one size and another that is ten times larger.
    """

    smallest: PositiveInt = 1
    largest: PositiveInt
    per_decade: Annotated[int, Field(ge=1, le=24)] = 8

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.budget is not None:
            raise ValueError("a range has no budget: give smallest and largest alone")
        if self.largest <= self.smallest:
            raise ValueError(f"from {self.smallest} to {self.largest} there is no range: raise largest")
        return self

    @property
    def choices(self) -> tuple[SizeChoice, ...]:
        """Returns the sizes by rising budgets, both ends among them."""
        steps = math.ceil(self.per_decade * math.log10(self.largest / self.smallest))
        inner = (round(self.smallest * 10 ** (step / self.per_decade)) for step in range(steps))
        budgets = sorted({*(b for b in inner if b < self.largest), self.largest})
        shared = self.model_dump(include=set(SizeChoice.model_fields), exclude={"budget"})
        return tuple(SizeChoice(budget=budget, **shared) for budget in budgets)


class AdaptiveFile(Executed):
    """A study file with an adaptive design.

    Attributes:
        name: the name of the study, and of its folder.
        predictions: what the authors expect, written down before the study is run.
        methods: those that are compared. Each gets as many runs as the others.
        rates: "shipped", or the learning rates to try.
        target: the accuracy to reach; `gain` if None.
        gain: the share of the gain from the base up to the ceiling.
        half_width: half the width of the interval that each threshold is to have, in decades.
        decide: the ratio sft : grpo that is to be excluded, instead of a width.
        most_runs: the largest number of trained runs.
        hours: no batch starts that would end later than this, at the pace of the last one. All calls count together.
        protocol: the changes of the shipped protocol.
        rollouts: the engine that samples in all runs; None for the trainer's own model.
        together: the largest number of runs on one base that share their passes. It changes no result.

    `executor`, `devices` and `ray` say where the runs are made; see `capacity.plan.executors`.
    """

    name: StudyName
    question: str = ""
    predictions: tuple[str, ...] = ()
    design: Literal["adaptive"]
    model: str
    task: str = "abacus"
    methods: Annotated[tuple[Method, ...], AfterValidator(once), Field(min_length=1)] = ("sft", "grpo")
    sizes: SizeRange
    rates: Annotated[Literal["shipped"] | tuple[Rate, ...], BeforeValidator(_readable_rates)] = "shipped"
    target: Share | None = None
    gain: Share | None = None
    half_width: Annotated[float, Field(gt=0)] | None = None
    decide: Annotated[float, Field(gt=0)] | None = None
    most_runs: PositiveInt = 60
    hours: Annotated[float, Field(gt=0)] | None = None
    storage_dtype: StorageDtype = "bf16"
    protocol: ProtocolChanges = ProtocolChanges()
    rollouts: RolloutSpec | None = None
    together: PositiveInt | None = None

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        found = resolve(model)
        check_trainable(found)
        return found

    @field_validator("methods")
    @classmethod
    def _own_rates(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        for method in methods:
            if METHODS[method].rate_from != method or METHODS[method].phases != (method,):
                raise ValueError(f"{method} has no learning rate of its own: give some of sft, rft and grpo")
        return methods

    @property
    def ceiling(self) -> Method:
        """Returns the method whose largest update is the ceiling, by the rule of `capacity threshold`."""
        return next((m for m in ("grpo", "sft") if m in self.methods), sorted(self.methods)[0])

    def points(self) -> tuple[GridPoint, ...]:
        """Returns the candidate sizes, each once, rising.

        Raises:
            SpecError: if there are too few, or the model does not have one of them.
        """
        task = parse_task(self.task)
        grid = Grid(models=(self.model,), tasks=(self.task,), storage_dtype=self.storage_dtype, protocol=self.protocol)
        found: dict[int, GridPoint] = {}
        for choice in self.sizes.choices:
            size = size_of(self.model, choice, self.storage_dtype)
            found.setdefault(size.trained_parameters, GridPoint(grid, self.model, task, size, self.rollouts))
        if len(found) < LEAST_SIZES:
            raise SpecError(
                f"sizes: {self.model} has {len(found)} different sizes from {self.sizes.smallest:,} to "
                f"{self.sizes.largest:,}, and a curve needs {LEAST_SIZES}: widen the range, or raise per_decade"
            )
        return tuple(found[parameters] for parameters in sorted(found))


def is_adaptive(raw: Mapping[str, Any]) -> bool:
    """Tells whether what a study file says has an adaptive design."""
    return raw.get("design") == "adaptive"


def read_any_study(path: Path) -> StudyFile | AdaptiveFile:
    """Reads a study file of either design and checks it.

    Raises:
        DataError: if the file cannot be read, or is not TOML.
        SpecError: if a field is unknown, missing or out of range. The message names it.
    """
    raw = read_toml(path)
    return parse_adaptive(raw, str(path)) if is_adaptive(raw) else parse_study(raw, str(path))


def asked_of(
    study: StudyFile | AdaptiveFile, target: float | None, gain: float | None
) -> tuple[float | None, float | None]:
    """Returns the target and the gain to look for: those that are given, else those of an adaptive study."""
    if target is None and gain is None and isinstance(study, AdaptiveFile):
        return study.target, study.gain
    return target, gain


def parse_adaptive(raw: Mapping[str, Any], where: str) -> AdaptiveFile:
    """A study from what its file says, checked. `where`: what errors call it.

    Raises:
        SpecError: a field is unknown, missing or out of range; it is named.
    """
    try:
        study = AdaptiveFile.model_validate(raw)
        _check(study)
        _check_shipped(study)
    except ValidationError as error:
        raise SpecError(f"{where}: {fault_of(error, AdaptiveFile)}") from None
    except BudgetError as error:
        raise SpecError(f"{where}: sizes: {error}") from None
    except CapacityError as error:
        raise SpecError(f"{where}: {error}") from None
    return study


def _check(study: AdaptiveFile) -> None:
    """Checks what depends on several fields.

    Raises:
        SpecError: if fields contradict each other.
    """
    if study.target is not None and study.gain is not None:
        raise SpecError("give target, or gain, not both")
    if study.half_width is not None and study.decide is not None:
        raise SpecError("give half_width, or decide, not both")
    if study.decide is not None and not {"sft", "grpo"} <= set(study.methods):
        raise SpecError("decide is about the ratio sft : grpo: name both in methods")
    tried = 1 if study.rates == "shipped" else len(study.rates)
    halved = -(-tried // 3) if tried > 3 else 0
    trials = 2 if tried == 1 else tried + halved + 2 * min(tried, 3)
    least = len(study.methods) * (trials + 2 * LEAST_SIZES)
    if study.most_runs < least:
        raise SpecError(
            f"most_runs is {study.most_runs}: {len(study.methods)} methods need at least {least}, "
            f"for trials on validation and two seeds at {LEAST_SIZES} sizes each"
        )
    if parse_task(study.task).name not in PROTOCOLS:
        raise SpecError(f"task {study.task} has no shipped protocol")


def _check_shipped(study: AdaptiveFile) -> None:
    """Checks that every candidate size has a learning rate.

    Raises:
        SpecError: if there are too few sizes, or none is shipped for one of them.
    """
    for point in study.points():
        for method in study.methods if study.rates == "shipped" else ():
            try:
                shipped_rate(point.model, point.task, method, point.size)
            except SpecError:
                raise SpecError(
                    f"rates: none is shipped for {method} at {point.size.trained_parameters:,} parameters of "
                    f"{point.size.kind} on {point.model}: list rates to try, or narrow sizes"
                ) from None
