"""Cells that differ in method, demonstrations and learning rate alone, side by side with the untrained model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import numpy as np

from capacity.runs.cell import BASE, Field, apart_from, cell_of, without
from capacity.spec.methods import PAIRS, Part, in_order, place
from capacity.spec.run import RunSpec
from capacity_analysis.compare.zero import ZeroControl, zero_control
from capacity_analysis.data.cell_results import CellResult, cell_results, collapsed_share, difference, seed_differences
from capacity_analysis.data.recipes import UNSEEN, told_apart
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import reported_rows
from capacity_analysis.statistics.collapses import CollapsedShare
from capacity_analysis.statistics.crossed import SeedVariance
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.statistics.seed_tests import Permutation, permutation_test

# What the cells of one comparison may differ in, and what the untrained model has none of.
_DEMONSTRATIONS = ("task.demonstrations", "task.options.style_bits", "task.options.style_shift")
_OF_THE_METHOD = ("method", *get_args(Part), "training.learning_rate", *_DEMONSTRATIONS)
_OF_TRAINING = (*_OF_THE_METHOD, "training")
_OF_THE_UPDATE = (*_OF_THE_METHOD, "adapter", "storage_dtype", "training", "rollouts")
_TEMPERATURE = ("evaluation.temperature", "evaluation.draws")  # greedy answers are not drawn


@dataclass(frozen=True)
class ComparedCell:
    """One trained cell of a comparison.

    Attributes:
        name: its method, and what tells it from the other cells of the method.
        cell: what was measured.
        gain: over the untrained model under the same protocol; None if that has no run.
        gain_over_best_temperature: over the untrained model at its best temperature; None if that is not known.
        collapsed: how many of its seeds collapsed.
    """

    name: str
    cell: CellResult
    gain: Estimate | None
    gain_over_best_temperature: Estimate | None
    collapsed: CollapsedShare


@dataclass(frozen=True)
class Difference:
    """accuracy(first) − accuracy(second) over the seeds that both have.

    Attributes:
        first, second: names of compared cells.
        estimate: of the difference, by the crossed model of `capacity_analysis.statistics.crossed`.
        exchanged: the cross-check, which exchanges the two methods seed by seed; None with one seed.
    """

    first: str
    second: str
    estimate: Estimate
    exchanged: Permutation | None = None

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that such a study shows in four of five cases; None if that is not known."""
        return smallest_detectable(self.estimate)


@dataclass(frozen=True)
class Comparison:
    """The cells of one model, task, size and protocol.

    Attributes:
        recipe: the fields that all of them share.
        cells: the trained ones, in the order of their methods.
        base: accuracy of the untrained model under the same protocol; None if that has no run.
        base_by_temperature: the untrained model on the same items, by temperature.
        best_temperature: at which it is best on validation; None unless several were tried there.
        differences: of every pair of methods.
        incomplete: how many planned runs of a method gave no result; what is said is about the others. Those of the
            base count at every temperature.
        zero: the adapter of zeros; None if it has no run.
    """

    recipe: Mapping[Field, Any]
    cells: tuple[ComparedCell, ...]
    base: Estimate | None
    base_by_temperature: Mapping[float, Estimate]
    best_temperature: float | None
    differences: tuple[Difference, ...]
    incomplete: Mapping[str, int]
    zero: ZeroControl | None = None

    @property
    def task(self) -> str:
        """The task with the demonstrations that some cell saw: "abacus?demonstrations=own"."""
        tasks = [compared.cell.task or "" for compared in self.cells]
        task = tasks[0] if tasks else str(self.recipe["task.name"])
        seen = [c.cell.demonstrations for c in self.cells if c.cell.demonstrations not in (None, UNSEEN)]
        return f"{task}{'&' if '?' in task else '?'}demonstrations={seen[0]}" if seen else task


def comparisons(points: Points, lost: Sequence[RunSpec] = ()) -> tuple[Comparison, ...]:
    """Every comparison that the runs of a table allow, by model, task and size.

    Args:
        points: as read; of several learning rates those that validation chose are compared.
        lost: planned runs that gave no result.

    Raises:
        SpecError: a method has several learning rates at a size, and no validation rows choose among them.
        DataError: runs answered different items.
    """
    reported = points.where(reported_rows(points))
    validation = points.where((points.frame["split"] == "validation").fillna(False))
    untrained = _Untrained(_of(reported, "base"), _of(validation, "base"), _of(reported, "zero"))
    trained: dict[str, list[CellResult]] = {}
    for cell in cell_results(reported):
        if cell.trained_parameters > 0:
            trained.setdefault(apart_from(cell.recipe, *_OF_THE_METHOD), []).append(cell)
    reported_lost = [spec for spec in lost if spec.evaluation.split != "validation"]
    controls = [spec for spec in reported_lost if spec.training is None]
    absent: dict[str, list[RunSpec]] = {}
    for spec in reported_lost:
        if spec.training is not None:
            absent.setdefault(cell_of(spec).apart_from(*_OF_THE_METHOD), []).append(spec)
    # A planned run has no base yet: it is missing from whatever comparison its recipe belongs to.
    planned = {key: apart_from(own[0].recipe, *_OF_THE_METHOD, BASE) for key, own in trained.items()}
    groups = [(own, absent.get(planned[key], [])) for key, own in trained.items()]
    groups += [([], own) for key, own in absent.items() if key not in planned.values()]
    made = [_comparison(own, [*missing, *_beside(own, missing, controls)], untrained) for own, missing in groups]
    return tuple(sorted(made, key=_order))


def _beside(cells: Sequence[CellResult], lost: Sequence[RunSpec], controls: Sequence[RunSpec]) -> list[RunSpec]:
    """Those runs without training that stand beside trained cells, or beside lost runs if there are no cells.

    An adapter of zeros stands beside one size, and the base at every temperature beside all sizes.
    """
    recipe = cells[0].recipe if cells else cell_of(lost[0]).fields

    def stands(spec: RunSpec) -> bool:
        apart = (*(_OF_TRAINING if spec.method == "zero" else (*_OF_THE_UPDATE, *_TEMPERATURE)), BASE)
        return cell_of(spec).apart_from(*apart) == apart_from(recipe, *apart)

    return [spec for spec in controls if stands(spec)]


def _of(points: Points, method: str) -> list[CellResult]:
    return [cell for cell in cell_results(points) if cell.method == method]


@dataclass(frozen=True)
class _Untrained:
    """Cells of untrained models on the reported split and on validation, and those of adapters of zeros."""

    reported: Sequence[CellResult]
    validation: Sequence[CellResult]
    zeros: Sequence[CellResult]

    def base(self, recipe: Mapping[Field, Any]) -> CellResult | None:
        """The untrained model of a trained recipe under the same protocol."""
        return untrained_under(self.reported, recipe)

    def zero(self, recipe: Mapping[Field, Any]) -> ZeroControl | None:
        """The adapter of zeros with the adapter of a trained recipe, under the same protocol."""
        wanted = apart_from(recipe, *_OF_TRAINING)
        found = next((cell for cell in self.zeros if apart_from(cell.recipe, *_OF_TRAINING) == wanted), None)
        return None if found is None else zero_control(found, self.base(recipe))

    def by_temperature(self, recipe: Mapping[Field, Any]) -> dict[float, CellResult]:
        """The same at every temperature, rising."""
        return _by_temperature(_alike(self.reported, recipe, *_TEMPERATURE))

    def best_temperature(self, recipe: Mapping[Field, Any]) -> float | None:
        """At which it has the highest accuracy on validation, the highest of equals; None if one alone was tried."""
        found = _by_temperature(_alike(self.validation, recipe, *_TEMPERATURE, "evaluation.split", "evaluation.items"))
        return max(found, key=lambda t: (found[t].accuracy.value, t)) if len(found) > 1 else None


def untrained_under(untrained: Sequence[CellResult], recipe: Mapping[Field, Any]) -> CellResult | None:
    """Of untrained models, the one of a trained recipe under the same protocol; None if there is none."""
    return next(iter(_alike(untrained, recipe)), None)


def _alike(untrained: Sequence[CellResult], recipe: Mapping[Field, Any], *besides: Field) -> list[CellResult]:
    wanted = apart_from(recipe, *_OF_THE_UPDATE, *besides)
    return [cell for cell in untrained if apart_from(cell.recipe, *_OF_THE_UPDATE, *besides) == wanted]


def _by_temperature(cells: Sequence[CellResult]) -> dict[float, CellResult]:
    found = {cell.temperature: cell for cell in cells}
    return {temperature: found[temperature] for temperature in sorted(t for t in found if t is not None)}


def _comparison(cells: Sequence[CellResult], lost: Sequence[RunSpec], untrained: _Untrained) -> Comparison:
    cells = sorted(cells, key=lambda cell: (place(cell.method), cell.demonstrations or "", cell.identity))
    recipe = cells[0].recipe if cells else cell_of(lost[0]).fields
    base, at, best = untrained.base(recipe), untrained.by_temperature(recipe), untrained.best_temperature(recipe)
    sharpened = None if best is None else at.get(best)
    named = list(zip(_names(cells), cells, strict=True))
    return Comparison(
        recipe=without(recipe, *_OF_THE_METHOD),
        cells=tuple(
            ComparedCell(
                name,
                cell,
                None if base is None else difference(cell, base),
                None if sharpened is None else difference(cell, sharpened),
                collapsed_share(cell, base),
            )
            for name, cell in named
        ),
        base=None if base is None else base.accuracy,
        base_by_temperature={temperature: cell.accuracy for temperature, cell in at.items()},
        best_temperature=None if sharpened is None else best,
        differences=tuple(_differences(named)),
        incomplete={m: sum(spec.method == m for spec in lost) for m in in_order({spec.method for spec in lost})},
        zero=untrained.zero(recipe),
    )


def _names(cells: Sequence[CellResult]) -> list[str]:
    """Methods, with what tells the cells of one method apart."""
    words: dict[str, str] = {}
    for method in {cell.method for cell in cells}:
        own = [cell for cell in cells if cell.method == method]
        told = told_apart([cell.recipe for cell in own], "training.learning_rate")
        words.update(zip((cell.identity for cell in own), told, strict=True))
    return [" ".join(part for part in (cell.method, words[cell.identity]) if part) for cell in cells]


def _differences(cells: Sequence[tuple[str, CellResult]]) -> Iterator[Difference]:
    over_methods = _seed_variance([cell for _, cell in cells])
    for pair in PAIRS:
        for (one, first), (two, second) in product(cells, cells):
            if (first.method, second.method) != pair:
                continue
            found = difference(first, second, over_methods if first.seeds == second.seeds else None)
            if found is not None:
                yield Difference(one, two, found, _exchanged(first, second))


def _seed_variance(cells: Sequence[CellResult]) -> SeedVariance | None:
    """The variance of seed × method over all cells; None unless all of them have the same known seeds."""
    if len({cell.seeds for cell in cells}) != 1 or None in cells[0].seeds:
        return None
    return SeedVariance.of(np.array([cell.accuracies for cell in cells]))


def _exchanged(first: CellResult, second: CellResult) -> Permutation | None:
    apart = seed_differences(first, second)[:, None]
    if len(apart) < 2:
        return None
    generator = np.random.default_rng(0)
    return permutation_test(apart, np.zeros_like(apart), paired=True, generator=generator, two_sided=True)


def _order(comparison: Comparison) -> tuple[Any, ...]:
    sizes = [c.cell.trained_parameters for c in comparison.cells]
    model, task = (str(comparison.recipe.get(name)) for name in ("model", "task.name"))
    return model, task, min(sizes, default=0), apart_from(comparison.recipe)
