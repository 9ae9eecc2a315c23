"""Which cells of a study answer to which cells of its baseline, which of them make up a curve, and what that is called.

Cells match only if their recipes are equal. What does not match is an error that names the field: a comparison of
different protocols would blame the code for what the study changed.
"""

import itertools
from collections.abc import Iterable, Sequence

from capacity.errors import DataError
from capacity.runs.cell import Cell, cell_of, cells, seeds_of
from capacity.runs.points import protocol_name
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec
from capacity_analysis.check.baseline import Baseline, StoredCell

# What the sizes of one curve may differ in; method, model, task and protocol are left.
_SIZE = ("adapter", "storage_dtype", "training", "grpo", "rft", "warm_start", "rollouts", "evaluation.items")
Seeds = tuple[int, int]


def match(study: Baseline, baseline: Baseline) -> list[tuple[StoredCell, StoredCell]]:
    """The cells of the baseline with those of the study, (old, new).

    What the study has besides is left out: other cells, and of a cell with all seeds of the baseline's the other seeds.
    A study that shares no seed with the baseline keeps its own.

    Raises:
        DataError: a size or a seed is missing, the items or the base differ, or the same spec makes an update of
            another size. So is a protocol that differs; the message names the field.
    """
    by_cell = {new.cell: new for new in study.cells}
    kept = {old.cell for old in baseline.cells}
    found = []
    for old in baseline.cells:
        new = by_cell.get(old.cell)
        if new is None:
            # A cell of another size is another cell, unless another model makes the same spec another size.
            others = [
                other.cell
                for other in study.cells
                if other.cell not in kept
                and (other.trained_parameters == old.trained_parameters or other.cell.spec.model != old.cell.spec.model)
            ]
            raise DataError(_why_missing(old, others, (other.label for other in study.cells), "study"))
        if None not in (old.base, new.base) and old.base != new.base:
            raise DataError(
                f"{old.label}: the study was made on other weights of {old.cell.spec.model} than the baseline: "
                "restore the weights, or make a new baseline if that was meant"
            )
        if _other_items(old, new):
            counts = "" if new.n_items == old.n_items else f" ({new.n_items} against {old.n_items})"
            raise DataError(
                f"{old.label}: the study answered other items than the baseline{counts}: "
                "the task changed; make a new baseline if that was meant"
            )
        if _size(new) != _size(old):
            # A larger update would score better, and hide that the one asked for is no longer made.
            raise DataError(
                f"{old.label}: the same spec now makes an update of another size ({_size(old)} → {_size(new)}): "
                "the adapters changed; make a new baseline if that was meant"
            )
        if _has_the_seeds(old, [run.seeds for run in new.runs]):
            shared = {run.seeds for run in old.runs}
            new = new.model_copy(update={"runs": tuple(run for run in new.runs if run.seeds in shared)})
        found.append((old, new))
    return found


def check_plan(specs: Sequence[RunSpec], baseline: Baseline) -> None:
    """Checks that runs which are still to be made will match a baseline, as far as specs can tell.

    Raises:
        DataError: what the baseline has is not planned, or with another protocol (says in which field).
    """
    planned = cells(specs, cell_of)
    kept = {old.cell for old in baseline.cells}
    others = [cell for cell in planned if cell not in kept]
    for old in baseline.cells:
        if old.cell not in planned:
            raise DataError(_why_missing(old, others, dict.fromkeys(cell.label for cell in planned), "study file"))
        _has_the_seeds(old, [seeds_of(spec) for spec in planned[old.cell]])


def _has_the_seeds(old: StoredCell, seeds: Sequence[Seeds]) -> bool:
    """True if a study has all seeds of a baseline's cell, false if it has none of them.

    Raises:
        DataError: some are lacking; they may be those that went wrong. A run of the same seed with an adapter of
            another is not the same run, and no fresh one either.
    """
    lost = [run.seeds for run in old.runs if run.seeds not in seeds]
    if lost and {seed for seed, _ in seeds} & set(old.seeds):
        raise DataError(
            f"{old.label}: the study has no seed {seed_names(lost)}, which the baseline has "
            f"(it has {seed_names(seeds)}): run all seeds of the baseline"
        )
    return not lost


def seed_names(seeds: Iterable[Seeds]) -> str:
    """The seeds of runs, "0, 1, 2", with those of adapters that do not follow: "0 (adapter 7)"."""
    return ", ".join(str(seed) if seed == adapter else f"{seed} (adapter {adapter})" for seed, adapter in seeds)


def check_curves(baseline: Baseline) -> None:
    """Checks that every curve that would be judged has the same seeds at all sizes.

    Raises:
        DataError: one has not.
    """
    curves: dict[str, list[StoredCell]] = {}
    for stored in baseline.cells:
        if is_judged(stored.cell):
            curves.setdefault(curve_of(stored.cell), []).append(stored)
    for sizes in curves.values():
        check_seeds(sizes)


def is_judged(cell: Cell) -> bool:
    """True for cells that are trained, and meant to learn."""
    return cell.spec.training is not None and METHODS[cell.spec.method].meant_to_learn


def check_seeds(sizes: Sequence[StoredCell]) -> None:
    """Checks that the sizes of a curve have the same seeds: the unit of the tests is a seed's mean over sizes.

    Raises:
        DataError: they have not. Seeds that some sizes lack would not count, whatever they did.
    """
    first = sizes[0]
    for size in sizes[1:]:
        if size.seeds != first.seeds:
            one, other = (f"{s.label} has {', '.join(map(str, s.seeds))}" for s in (first, size))
            raise DataError(f"the sizes of a curve have different seeds ({one}; {other}): give all the same seeds")


def identical(old: StoredCell, new: StoredCell) -> bool:
    """True if the runs of both have the same seeds and answers."""
    return {run.seeds: run.answers for run in old.runs} == {run.seeds: run.answers for run in new.runs}


def curve_of(cell: Cell) -> str:
    """What the sizes of one curve have in common: equal texts, the same curve."""
    return cell.apart_from(*_SIZE)


def curve_names(curves: Sequence[Cell]) -> list[str]:
    """The method of each curve, with what else it takes to tell them apart: model, task, protocol.

    Args:
        curves: a cell of each.
    """
    parts = [
        (spec.method, spec.model, spec.task.label, f"{spec.evaluation.split} {protocol_name(spec.evaluation)}")
        for spec in (cell.spec for cell in curves)
    ]
    alone = len({part[0] for part in parts}) == len(parts)
    differ = [
        number == 0 or (not alone and len(set(column)) > 1) for number, column in enumerate(zip(*parts, strict=True))
    ]
    return [" ".join(itertools.compress(part, differ)) for part in parts]


def size_labels(sizes: Sequence[StoredCell]) -> list[str]:
    """Trained parameters, with what else it takes to tell the sizes of a curve apart."""
    labels = [f"{size.trained_parameters:,}" for size in sizes]
    for field in ("adapter.kind", "training.learning_rate", "storage_dtype", None):
        if len(set(labels)) == len(labels):
            break
        for i, size in enumerate(sizes):
            labels[i] += f" {size.cell.fields[field]}" if field else f" #{i + 1}"
    return labels


def _other_items(old: StoredCell, new: StoredCell) -> bool:
    """Compared by number and names; by contents too, where the runs of both recorded them."""
    if (new.n_items, new.items_digest) != (old.n_items, old.items_digest):
        return True
    return "" not in (old.contents_digest, new.contents_digest) and new.contents_digest != old.contents_digest


def _size(stored: StoredCell) -> str:
    """What an update of the cell holds; bytes only where they do not depend on what was learnt."""
    text = f"{stored.trained_parameters:,} parameters"
    if stored.cell.spec.storage_dtype == "entropy":
        return text
    return f"{text}, {' or '.join(f'{n:,}' for n in sorted({run.update_bytes for run in stored.runs}))} bytes"


def _why_missing(old: StoredCell, others: Sequence[Cell], labels: Iterable[str], what: str) -> str:
    """The line for a cell of the baseline that a study or a study file does not have.

    Args:
        old: the cell.
        others: cells that match none of the baseline.
        labels: what there is.
        what: "study" or "study file".
    """
    wanted = old.cell
    alike = [cell for cell in others if _kind(cell) == _kind(wanted)]
    if alike:
        fields = min((wanted.differs(cell) for cell in alike), key=len)
        differences = ", ".join(f"{name} ({_value(a)} → {_value(b)})" for name, (a, b) in fields.items())
        return (
            f"{old.label}: the protocols of baseline and {what} differ in {differences}: "
            "run the study of the baseline, or make a new baseline"
        )
    return (
        f"the {what} has no {old.label}, which the baseline has (it has {', '.join(labels)}): "
        "run all sizes of the baseline"
    )


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.spec.method, cell.spec.adapter.kind


def _value(value: object) -> str:
    return "none" if value is None else str(value)
