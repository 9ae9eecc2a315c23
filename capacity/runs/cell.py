"""A cell holds the runs that differ in nothing but their seeds. Whatever groups runs by recipe asks this module.

The seeds of a run are the run's own and those of its adapter's random parts (projection or initial values). The seed of
the evaluation is not among them: it is part of the protocol.

A spec names its model, but the weights under that name can change. So the base of a run is part of its cell.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from capacity.spec.frozen import canonical_json
from capacity.spec.methods import place
from capacity.spec.run import RunSpec

_Run = TypeVar("_Run")
Field = str  # a dotted path in the JSON of a spec, such as "adapter.rank" or "training.steps"
MODEL, BASE = "model", "base"


class Cell:
    """A cell is a run spec without its seeds, and the base that it was run on. Cells with equal recipes are equal.

    Args:
        spec: the spec of a run.
        base: the fingerprint of the base's weights. It is None for a planned run, and for a run that did not record it.
    """

    def __init__(self, spec: RunSpec, base: str | None = None) -> None:
        self.spec = spec
        self.recipe = spec.model_dump(mode="json", exclude={"seed"})
        self.recipe["adapter"].pop(spec.adapter.seed_field, None)
        if base is not None:
            self.recipe[BASE] = base[:16]

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
    parts = tuple(f"{field}." for field in fields)
    return {name: value for name, value in recipe.items() if name not in fields and not name.startswith(parts)}


def differing(recipes: Iterable[Mapping[Field, Any]]) -> list[Field]:
    """Returns the fields in which at least two recipes differ, in the order in which they come.

    A recipe may lack a field. The base is among the fields only if a model has several: otherwise the model tells it.
    """
    several = list(recipes)
    names = dict.fromkeys(name for recipe in several for name in recipe)
    found = [name for name in names if any(recipe.get(name) != several[0].get(name) for recipe in several)]
    bases = {(recipe.get(MODEL), recipe.get(BASE)) for recipe in several}
    if len(bases) == len({model for model, _ in bases}):
        return [name for name in found if name != BASE]
    return found


def seeds_of(spec: RunSpec) -> tuple[int, int]:
    """Returns the seeds that tell the runs of a cell apart: that of the run and that of its adapter's random parts.

    An adapter without random parts counts as one that takes the seed of the run.
    """
    field = spec.adapter.seed_field
    return spec.seed, spec.seed if field is None else getattr(spec.adapter, field)


def cell_of(spec: RunSpec, base: str | None = None) -> Cell:
    """Returns the cell of a run with this spec on a base with this fingerprint; see `Cell`."""
    return Cell(spec, base)


def cells(runs: Iterable[_Run], cell_of: Callable[[_Run], Cell]) -> dict[Cell, list[_Run]]:
    """Groups runs by cell. Cells are in the order of their first runs, and runs of a cell in the order of their seeds.

    Args:
        runs: objects of any type that stand for runs.
        cell_of: a function that returns the cell of such an object, made from the spec of this very run.
    """
    found: dict[Cell, list[tuple[tuple[int, int], _Run]]] = {}
    for run in runs:
        cell = cell_of(run)
        found.setdefault(cell, []).append((seeds_of(cell.spec), run))
    return {cell: [run for _, run in sorted(members, key=lambda member: member[0])] for cell, members in found.items()}


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
