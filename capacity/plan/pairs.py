"""Checks that the methods of a study can be paired: at each size, two methods have a projection in common."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from capacity.errors import DataError, SpecError
from capacity.plan.kinds.tinylora import choice_of
from capacity.plan.sizes import SizeChoice, size_of
from capacity.spec.adapters import ProjectionChoice, StorageDtype, TinyLora

if TYPE_CHECKING:
    from capacity.plan.study_file import Grid

Key = TinyLora | SizeChoice  # what a size is known by
Choices = set[ProjectionChoice | None]  # None: a random projection


def check_pairs(grids: Sequence["Grid"]) -> None:
    """Checks the projections of the methods that a study trains at one size, on one model and task.

    Two methods with different projections differ in more than the method. A choice by each method's own gradient
    (`projection_by = "own"`) is such a difference too. There the study file asks for it. Sizes are compared as what
    they come to on the model, however the file writes them. A budget in bytes comes to fewer parameters if they are
    chosen, so equal budgets in bytes are one size too.

    Raises:
        SpecError: if two methods have no projection in common, or if a model does not have one of the sizes. The
            message names them.
    """
    if not _may_differ(grids):
        return
    found: dict[tuple[str, str, Key], dict[str, Choices]] = {}
    for number, grid in enumerate(grids, start=1):
        for model in grid.models:
            for size in grid.sizes:
                for key, choice in _keys(model, size, grid.storage_dtype, number):
                    for task in grid.tasks:
                        at = found.setdefault((model, task.partition("?")[0], key), {})
                        for method in grid.methods:
                            at.setdefault(method, set()).add(choice)
    for methods in found.values():
        for (one, of_one), (other, of_other) in combinations(methods.items(), 2):
            if of_one.isdisjoint(of_other):
                raise SpecError(
                    f"{one} has {_said(of_one)} and {other} {_said(of_other)} at one size, so a pair of them would "
                    "differ in more than the method: give both the same, or write mixed_projections = true"
                )


def _may_differ(grids: Sequence["Grid"]) -> bool:
    """Tells whether several methods train, and some projection is chosen.

    Only then are the shapes of the models needed.
    """
    chosen = any(size.projection == "chosen" for grid in grids for size in grid.sizes)
    return chosen and len({method for grid in grids for method in grid.methods}) > 1


def _keys(
    model: str, size: SizeChoice, storage_dtype: StorageDtype, number: int
) -> list[tuple[Key, ProjectionChoice | None]]:
    """Returns what a size is known by, with its choice: its adapter with a random P, and a budget in bytes as it is.

    A model whose shape cannot be read now has only the words of the file.
    """
    words = size.model_copy(update={"projection": None, "projection_bits": None, "projection_by": None})
    try:
        in_words: list[tuple[Key, ProjectionChoice | None]] = [(words, _measured(choice_of(size.told)))]
        template = size_of(model, size, storage_dtype).template
    except SpecError as error:
        raise SpecError(f"grid {number}: {error}") from None
    except DataError:
        return in_words
    if not isinstance(template, TinyLora):
        return []
    resolved = (template.model_copy(update={"choice": None}), _measured(template.choice))
    in_bytes = size.limit is not None and size.limit.unit == "bits"
    return [resolved, *(in_words if in_bytes else [])]


def _measured(choice: ProjectionChoice | None) -> ProjectionChoice | None:
    """Returns a choice, or None if it has no bits: its projection is then the random one."""
    return None if choice is None or choice.bits == 0 else choice


def _said(choices: Choices) -> str:
    """The projections in words: "a random projection or a projection chosen with 8 bits"."""
    return " or ".join(sorted("a random projection" if c is None else _chosen(c) for c in choices))


def _chosen(choice: ProjectionChoice) -> str:
    by = {"grpo": "", "own": " by its own gradient"}.get(choice.by, f" by {choice.by}")
    return f"a projection chosen{by} with {choice.bits} bits"
