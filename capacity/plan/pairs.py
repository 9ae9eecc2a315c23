"""Checks that the methods of a study can be paired: at each size, two methods have a projection in common."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from capacity.errors import CapacityError, SpecError
from capacity.plan.sizes import size_of
from capacity.spec.adapters import ProjectionChoice, TinyLora

if TYPE_CHECKING:
    from capacity.plan.study_file import Grid

Choices = set[ProjectionChoice | None]  # None: a random projection


def check_pairs(grids: Sequence["Grid"]) -> None:
    """Checks the projections of the methods that a study trains at one size, on one model and task.

    Two methods with different projections differ in more than the method. A choice by each method's own gradient
    (`projection_by = "own"`) is such a difference too. There the study file asks for it. Sizes are compared as what
    they come to on the model, however the file writes them.

    Raises:
        SpecError: if two methods have no projection in common, or if a model does not have one of the sizes. The
            message names them.
    """
    if not any(size.projection == "chosen" for grid in grids for size in grid.sizes):
        return  # so a study of random projections is read without the shapes of its models
    found: dict[tuple[str, str, TinyLora], dict[str, Choices]] = {}
    for number, grid in enumerate(grids, start=1):
        for model in grid.models:
            for adapter in _tinyloras(grid, model, number):
                random = adapter.model_copy(update={"choice": None})
                for task in grid.tasks:
                    at = found.setdefault((model, task.partition("?")[0], random), {})
                    for method in grid.methods:
                        at.setdefault(method, set()).add(_measured(adapter.choice))
    for methods in found.values():
        for (one, of_one), (other, of_other) in combinations(methods.items(), 2):
            if of_one.isdisjoint(of_other):
                raise SpecError(
                    f"{one} has {_said(of_one)} and {other} {_said(of_other)} at one size, so a pair of them would "
                    "differ in more than the method: give both the same, or write mixed_projections = true"
                )


def _tinyloras(grid: "Grid", model: str, number: int) -> list[TinyLora]:
    """Returns what those sizes of a grid come to on a model that are TinyLoRAs."""
    try:
        templates = [size_of(model, size, grid.storage_dtype).template for size in grid.sizes]
    except CapacityError as error:
        raise SpecError(f"grid {number}: {error}") from None
    return [template for template in templates if isinstance(template, TinyLora)]


def _measured(choice: ProjectionChoice | None) -> ProjectionChoice | None:
    """Returns a choice, or None if it has no bits: its projection is then the random one."""
    return None if choice is None or choice.bits == 0 else choice


def _said(choices: Choices) -> str:
    """The projections in words: "a random projection or a projection chosen with 8 bits"."""
    return " or ".join(sorted("a random projection" if c is None else _chosen(c) for c in choices))


def _chosen(choice: ProjectionChoice) -> str:
    by = {"grpo": "", "own": " by its own gradient"}.get(choice.by, f" by {choice.by}")
    return f"a projection chosen{by} with {choice.bits} bits"
