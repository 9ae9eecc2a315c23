"""Which cells of a study answer to which cells of its baseline, and what they are called.

Cells match only if their specs agree in everything but the seed. What does not match is an error that names the field:
a comparison of different protocols would blame the code for what the study changed.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capacity.errors import DataError
from capacity.runs.points import protocol_name
from capacity.spec.frozen import canonical_json
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec
from capacity_analysis.check.baseline import Baseline, Cell, seedless


def match(study: Baseline, baseline: Baseline) -> list[tuple[Cell, Cell]]:
    """The cells of the baseline with those of the study, (old, new).

    What the study has besides is left out: other cells, and of a cell with all seeds of the baseline's the other seeds.
    A study that shares no seed with the baseline keeps its own.

    Raises:
        DataError: a size or a seed is missing, a protocol differs (says in which field), the items differ, or the same
            spec makes an update of another size.
    """
    by_key = {cell.key: cell for cell in study.cells}
    found = []
    for old in baseline.cells:
        new = by_key.get(old.key)
        if new is None:
            kept = {cell.key for cell in baseline.cells}
            # A cell of another size is another cell, unless another model makes the same spec another size.
            others = [
                cell.spec
                for cell in study.cells
                if cell.key not in kept
                and (cell.trained_parameters == old.trained_parameters or cell.spec["model"] != old.spec["model"])
            ]
            raise DataError(_why_missing(old, old.spec, others, map(cell_label, study.cells), "study"))
        if _other_items(old, new):
            counts = "" if new.n_items == old.n_items else f" ({new.n_items} against {old.n_items})"
            raise DataError(
                f"{cell_label(old)}: the study answered other items than the baseline{counts}: "
                "the task changed; make a new baseline if that was meant"
            )
        if _size(new) != _size(old):
            # A larger update would score better, and hide that the one asked for is no longer made.
            raise DataError(
                f"{cell_label(old)}: the same spec now makes an update of another size ({_size(old)} → {_size(new)}): "
                "the adapters changed; make a new baseline if that was meant"
            )
        shared = _check_shared(old, new.seeds)
        if shared:
            new = new.model_copy(update={"runs": tuple(run for run in new.runs if run.seed in shared)})
        found.append((old, new))
    return found


def check_plan(specs: Sequence[RunSpec], baseline: Baseline) -> None:
    """Whether runs that are still to be made will match a baseline, as far as specs can tell.

    Raises:
        DataError: what the baseline has is not planned, or with another protocol (says in which field).
    """
    planned: dict[str, list[RunSpec]] = {}
    for spec in specs:
        planned.setdefault(canonical_json(seedless(spec.model_dump(mode="json"))), []).append(spec)
    wanted = {canonical_json(seedless(cell.spec)): cell for cell in baseline.cells}
    others = [seedless(group[0].model_dump(mode="json")) for key, group in planned.items() if key not in wanted]
    for key, old in wanted.items():
        if key in planned:
            _check_shared(old, [spec.seed for spec in planned[key]])
        else:
            labels = dict.fromkeys(group[0].label.rpartition(" seed ")[0] for group in planned.values())
            raise DataError(_why_missing(old, seedless(old.spec), others, labels, "study file"))


def _check_shared(old: Cell, seeds: Sequence[int]) -> list[int]:
    """The seeds of a baseline's cell that a study has: all or none.

    Raises:
        DataError: some are lacking; they may be those that went wrong.
    """
    shared = [seed for seed in old.seeds if seed in seeds]
    if shared and len(shared) < len(old.seeds):
        lost = ", ".join(str(seed) for seed in old.seeds if seed not in seeds)
        raise DataError(
            f"{cell_label(old)}: the study has no seed {lost}, which the baseline has: run all seeds of the baseline"
        )
    return shared


def check_curves(baseline: Baseline) -> None:
    """Whether every curve that would be judged has the same seeds at all sizes.

    Raises:
        DataError: one has not.
    """
    curves: dict[str, list[Cell]] = {}
    for cell in baseline.cells:
        if is_judged(cell):
            curves.setdefault(curve_name(cell), []).append(cell)
    for cells in curves.values():
        check_seeds(cells)


def is_judged(cell: Cell) -> bool:
    """Trained, and meant to learn."""
    return cell.spec["training"] is not None and METHODS[cell.spec["method"]].meant_to_learn


def check_seeds(cells: Sequence[Cell]) -> None:
    """Whether the sizes of a curve have the same seeds: the unit of the tests is a seed's mean over sizes.

    Raises:
        DataError: they have not. Seeds that some sizes lack would not count, whatever they did.
    """
    first = cells[0]
    for cell in cells[1:]:
        if cell.seeds != first.seeds:
            one, other = (f"{cell_label(c)} has {', '.join(map(str, c.seeds))}" for c in (first, cell))
            raise DataError(f"the sizes of a curve have different seeds ({one}; {other}): give all the same seeds")


def identical(old: Cell, new: Cell) -> bool:
    """Whether the runs of both have the same seeds and answers."""
    return {r.seed: r.answers for r in old.runs} == {r.seed: r.answers for r in new.runs}


def cell_label(cell: Cell) -> str:
    """ "grpo tinylora 84", "base T=1"."""
    spec = cell.spec
    if spec["training"] is None:
        evaluation = spec["evaluation"]
        split = "" if evaluation["split"] == "test" else f" {evaluation['split']}"
        return f"{spec['method']} T={evaluation['temperature']:g}{split}"
    return f"{spec['method']} {spec['adapter']['kind']} {cell.trained_parameters:,}"


def curve_name(cell: Cell) -> str:
    """What the sizes of one curve have in common: method, model, task and protocol."""
    spec = cell.first_spec
    return (
        f"{spec.method} | {spec.model} | {spec.task.label} | {spec.evaluation.split} {protocol_name(spec.evaluation)}"
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The method of each curve, with the parts of the name in which curves differ if it takes them."""
    parts = [name.split(" | ") for name in names]
    if len({part[0] for part in parts}) == len(parts):
        return {name: part[0] for name, part in zip(names, parts, strict=True)}
    differ = [number == 0 or len(set(column)) > 1 for number, column in enumerate(zip(*parts, strict=True))]
    return {name: " ".join(itertools.compress(part, differ)) for name, part in zip(names, parts, strict=True)}


def size_labels(cells: Sequence[Cell]) -> list[str]:
    """Trained parameters, with what else it takes to tell the sizes of a curve apart."""
    labels = [f"{cell.trained_parameters:,}" for cell in cells]
    for part in ("adapter.kind", "training.learning_rate", "storage_dtype", None):
        if len(set(labels)) == len(labels):
            break
        for i, cell in enumerate(cells):
            value: Any = cell.spec
            for name in part.split(".") if part else ():
                value = value[name]
            labels[i] += f" {value}" if part else f" #{i + 1}"
    return labels


def _other_items(old: Cell, new: Cell) -> bool:
    """By number and names; by contents too, where the runs of both recorded them."""
    if (new.n_items, new.items_digest) != (old.n_items, old.items_digest):
        return True
    return "" not in (old.contents_digest, new.contents_digest) and new.contents_digest != old.contents_digest


def _size(cell: Cell) -> str:
    """What an update of the cell holds; bytes only where they do not depend on what was learnt."""
    text = f"{cell.trained_parameters:,} parameters"
    if cell.spec["storage_dtype"] == "entropy":
        return text
    return f"{text}, {' or '.join(f'{n:,}' for n in sorted({run.update_bytes for run in cell.runs}))} bytes"


def _why_missing(
    old: Cell, wanted: Mapping[str, Any], others: Sequence[Mapping[str, Any]], labels: Iterable[str], what: str
) -> str:
    """The line for a cell of the baseline that a study or a study file does not have.

    Args:
        old: the cell.
        wanted: its spec, in the form of `others`.
        others: specs that match no cell of the baseline.
        labels: what there is.
        what: "study" or "study file".
    """
    alike = [o for o in others if (o["method"], o["adapter"]["kind"]) == (wanted["method"], wanted["adapter"]["kind"])]
    if alike:
        differences = min((_differences(wanted, other) for other in alike), key=len)
        return (
            f"{cell_label(old)}: the protocols of baseline and {what} differ in {', '.join(differences)}: "
            "run the study of the baseline, or make a new baseline"
        )
    return (
        f"the {what} has no {cell_label(old)}, which the baseline has (it has {', '.join(labels)}): "
        "run all sizes of the baseline"
    )


def _differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Dotted fields that differ, with both values: "training.steps (160 → 80)"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in sorted({*old, *new}):
            inner = f"{place}.{name}" if place else str(name)
            found += _differences(old.get(name, "none"), new.get(name, "none"), inner)
        return found
    return [] if old == new else [f"{place} ({old} → {new})"]
