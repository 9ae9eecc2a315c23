"""A cell holds the runs that differ in nothing but their seeds. Whatever groups runs by recipe asks this module.

The seeds of a run are the run's own and those of its adapter's random parts (projection or initial values). The seed of
the evaluation is not among them: it is part of the protocol.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from capacity.spec.frozen import canonical_json
from capacity.spec.methods import place
from capacity.spec.run import RunSpec

_Run = TypeVar("_Run")
Field = str  # a dotted path in the JSON of a spec: "adapter.rank", "training.steps"


class Cell:
    """A cell is a run spec without its seeds. Two cells are equal if their recipes are equal."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.recipe = spec.model_dump(mode="json", exclude={"seed"})
        self.recipe["adapter"].pop(spec.adapter.seed_field, None)

    @cached_property
    def identity(self) -> str:
        """Returns the SHA-256 of the canonical JSON of the recipe, first 16 hex digits."""
        return hashlib.sha256(canonical_json(self.recipe).encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"Cell({self.label!r})"

    @property
    def label(self) -> str:
        """Returns a short description, such as "grpo 13" or "base T=1"."""
        return self.spec.label.rpartition(" seed ")[0]

    @cached_property
    def fields(self) -> dict[Field, Any]:
        """Returns every field of the recipe by its dotted path.

        A list counts as one value, and so does a part that is absent.
        """
        return dict(leaves(self.recipe))

    def differs(self, other: "Cell") -> dict[Field, tuple[Any, Any]]:
        """Returns the fields in which two cells differ, with both values.

        None stands for a field that one of the cells lacks.
        """
        names = sorted({*self.fields, *other.fields})
        pairs = {name: (self.fields.get(name), other.fields.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def apart_from(self, *fields: Field) -> str:
        """Returns the recipe without some fields or whole parts, as canonical JSON.

        Cells with equal results differ in these fields alone. Examples are the sizes of a curve, the rates of a tuning
        and the methods of a pair.
        """
        return apart_from(self.fields, *fields)


def apart_from(recipe: Mapping[Field, Any], *fields: Field) -> str:
    """Returns a recipe without some fields or whole parts, as canonical JSON; see `Cell.apart_from`."""
    return canonical_json(without(recipe, *fields))


def without(recipe: Mapping[Field, Any], *fields: Field) -> dict[Field, Any]:
    """Returns a recipe without some fields or whole parts.

    Args:
        recipe: values by dotted path.
        fields: paths of fields ("training.steps") or of parts ("training").
    """
    return {
        name: value
        for name, value in recipe.items()
        if not any(name == field or name.startswith(f"{field}.") for field in fields)
    }


def differing(recipes: Iterable[Mapping[Field, Any]]) -> list[Field]:
    """Returns the fields in which at least two recipes differ, in the order in which they come.

    A recipe may lack a field.
    """
    several = list(recipes)
    names = dict.fromkeys(name for recipe in several for name in recipe)
    return [name for name in names if any(recipe.get(name) != several[0].get(name) for recipe in several)]


def seeds_of(spec: RunSpec) -> tuple[int, int]:
    """Returns the seeds that tell the runs of a cell apart: that of the run and that of its adapter's random parts.

    An adapter without random parts counts as one that takes the seed of the run.
    """
    field = spec.adapter.seed_field
    return spec.seed, spec.seed if field is None else getattr(spec.adapter, field)


def cell_of(spec: RunSpec) -> Cell:
    """Returns the cell that a run with this spec belongs to."""
    return Cell(spec)


def cells(runs: Iterable[_Run], spec_of: Callable[[_Run], RunSpec]) -> dict[Cell, list[_Run]]:
    """Groups runs by cell. Cells are in the order of their first runs, and runs of a cell in the order of their seeds.

    Args:
        runs: objects of any type that stand for runs.
        spec_of: a function that returns the spec of such an object.
    """
    found: dict[Cell, list[_Run]] = {}
    for run in runs:
        found.setdefault(cell_of(spec_of(run)), []).append(run)
    return {cell: sorted(members, key=lambda run: seeds_of(spec_of(run))) for cell, members in found.items()}


def telling(cells: Iterable[Cell]) -> tuple[Field, ...]:
    """Returns the fields in which at least two of the cells differ, sorted by name."""
    return tuple(sorted(differing(cell.fields for cell in cells)))


def labels(shown: Mapping[Cell, Hashable]) -> dict[Cell, str]:
    """Returns what tells each cell from those that a table shows alike.

    Args:
        shown: the content of the table's columns for each cell.

    Returns:
        The fields and values in which a cell differs from cells with equal columns, such as "training.steps 24". The
        text is empty for a cell whose columns differ from those of all others.
    """
    alike: dict[Hashable, list[Cell]] = {}
    for cell, columns in shown.items():
        alike.setdefault(columns, []).append(cell)
    told = {columns: telling(members) for columns, members in alike.items()}
    return {
        cell: ", ".join(f"{field} {_in_words(cell.fields.get(field))}" for field in told[columns])
        for cell, columns in shown.items()
    }


def _in_words(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return "+".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def order(spec: RunSpec, trained_parameters: int) -> tuple[object, ...]:
    """Returns the sort key of a run in lists: model, task, method, size, learning rate, protocol and seed."""
    rate = spec.training.learning_rate if spec.training else 0.0
    how = (spec.evaluation.split, spec.evaluation.temperature)
    task = (spec.task.problems, place(spec.method), spec.task.style)
    return spec.model, *task, trained_parameters, rate, how, spec.seed


def leaves(value: Any, path: str = "") -> Iterable[tuple[Field, Any]]:
    """Yields the fields of nested JSON objects by their dotted paths. Lists and None count as values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
