"""Checks that the methods of a study can be paired: at each size, two methods have a projection in common."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from capacity.errors import SpecError
from capacity.plan.sizes import SizeChoice

if TYPE_CHECKING:
    from capacity.plan.study_file import Grid

_PROJECTION = ("projection", "projection_bits", "projection_by")


def check_pairs(grids: Sequence["Grid"]) -> None:
    """Checks the projections of the methods that a study trains at one size, on one model and task.

    Two methods with different projections differ in more than the method. A choice by each method's own gradient
    (`projection_by = "own"`) is such a difference too. There the study file asks for it.

    Raises:
        SpecError: if two methods have no projection in common. The message names both.
    """
    found: dict[tuple[str, str, SizeChoice], dict[str, set[SizeChoice]]] = {}
    for grid in grids:
        for model in grid.models:
            for task in grid.tasks:
                for size in grid.sizes:
                    at = found.setdefault((model, task.partition("?")[0], _without_projection(size)), {})
                    for method in grid.methods:
                        at.setdefault(method, set()).add(_in_full(size))
    for methods in found.values():
        for (one, of_one), (other, of_other) in combinations(methods.items(), 2):
            if of_one.isdisjoint(of_other):
                raise SpecError(
                    f"{one} has {_said(of_one)} and {other} {_said(of_other)} at one size, so a pair of them would "
                    "differ in more than the method: give both the same, or write mixed_projections = true"
                )


def _without_projection(size: SizeChoice) -> SizeChoice:
    told = size.model_dump(exclude=set(_PROJECTION))
    return SizeChoice(**told)


def _in_full(size: SizeChoice) -> SizeChoice:
    """The same size, which says so if its projection is random."""
    return size.model_copy(update={"projection": size.projection or "random"})


def _said(sizes: set[SizeChoice]) -> str:
    """The projections of some sizes in words: "a random projection", "a chosen projection of 8 bits"."""
    said = sorted({"a random projection" if s.projection == "random" else _chosen(s) for s in sizes})
    return " or ".join(said)


def _chosen(size: SizeChoice) -> str:
    by = {None: "", "own": " by its own gradient"}.get(size.projection_by, f" by {size.projection_by}")
    return f"a projection chosen{by} with {size.choice_bits} bits"
