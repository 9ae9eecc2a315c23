"""Evaluations by arm and task, with the items that all arms answered in one order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from capacity.errors import DataError
from capacity_analysis.evaluations.evaluation import Evaluation
from capacity_analysis.types import Array

_SHOWN = 3


@dataclass(frozen=True)
class Arm:
    """The answers of one arm to one task.

    Attributes:
        name: of the arm.
        seeds: of its evaluations; None for each that the source does not say.
        scores: seeds × items.
        binary: each item has one answer a seed, right or wrong.
        models: what answered, as the sources say.
    """

    name: str
    seeds: tuple[int | None, ...]
    scores: Array
    binary: bool
    models: tuple[str, ...]


@dataclass(frozen=True)
class TaskArms:
    """All arms on one task.

    Attributes:
        task, metric: names.
        items: names of the I items that all arms answered.
        clusters: the number of the cluster of each item, (I,); None if every item stands alone.
        arms: in the order in which they were given.
        left_out: items that some arm did not answer.
        contents_known: all sources say what they asked, and it is the same.
        samples: completions of an item, at least and at most.
    """

    task: str
    metric: str
    items: tuple[str, ...]
    clusters: Array | None
    arms: tuple[Arm, ...]
    left_out: int
    contents_known: bool
    samples: tuple[int, int]


def by_task(evaluations: Sequence[Evaluation], *, common: bool = False) -> tuple[TaskArms, ...]:
    """The tasks that all arms answered.

    Args:
        evaluations: of two arms or more.
        common: compare on the items that all have, and leave out the others.

    Raises:
        DataError: the arms are fewer than two, have no task in common, have a seed twice, or are graded by different
            metrics. Or items differ in name, in what they ask, or in their cluster, or there is only one.
    """
    names = list(dict.fromkeys(e.arm for e in evaluations))
    if len(names) < 2:
        raise DataError(f"one arm only ({', '.join(names)}): give two sources or more, or NAME=SOURCE")
    tasks = list(dict.fromkeys(e.task for e in evaluations))
    whole = [task for task in tasks if {e.arm for e in evaluations if e.task == task} == set(names)]
    if not whole:
        raise DataError(f"the arms {', '.join(names)} have no task in common ({', '.join(tasks) or 'no name'})")
    return tuple(_task([e for e in evaluations if e.task == task], names, common=common) for task in whole)


def tasks_of_some(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """The tasks that some arms answered, but not all of them: `by_task` leaves them out."""
    names = {e.arm for e in evaluations}
    tasks = dict.fromkeys(e.task for e in evaluations)
    return tuple(task for task in tasks if {e.arm for e in evaluations if e.task == task} != names)


def _task(evaluations: Sequence[Evaluation], names: Sequence[str], *, common: bool) -> TaskArms:
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.metric != first.metric:
            raise DataError(
                f"{other.source}: graded by {other.metric}, and {first.source} by {first.metric}: choose one with "
                "--metric"
            )
    items, left_out = _items(evaluations, common=common)
    clusters = _clusters(evaluations, items)
    drawn = len(items) if clusters is None else len(set(clusters.tolist()))
    if drawn < 2:
        what = "has one item" if clusters is None else f"has all {len(items):,} items in one cluster"
        raise DataError(f"{first.source}: {what}, from which nothing follows about others: two are needed at least")
    contents = [_column(e, items, e.contents) for e in evaluations]
    known = all(content is not None for own in contents for content in own)
    for other, own in zip(evaluations[1:], contents[1:], strict=True):
        for item, one, two in zip(items, contents[0], own, strict=True):
            if one is not None and two is not None and one != two:
                raise DataError(
                    f"{other.source}: item {item} asks or expects something else than in {first.source}: the prompts "
                    "differ, so the answers cannot be paired"
                )
    arms = tuple(_arm(name, [e for e in evaluations if e.arm == name], items) for name in names)
    counts = np.concatenate([e.samples for e in evaluations])
    samples = (int(counts.min()), int(counts.max()))
    return TaskArms(first.task, first.metric, items, clusters, arms, left_out, known, samples)


def _items(evaluations: Sequence[Evaluation], *, common: bool) -> tuple[tuple[str, ...], int]:
    """The items that all have, and how many others there are."""
    shared, union = set(evaluations[0].items), set(evaluations[0].items)
    for e in evaluations[1:]:
        shared &= set(e.items)
        union |= set(e.items)
    odd = union - shared
    if not shared:
        raise DataError(f"{evaluations[-1].source}: has no item in common with {evaluations[0].source}")
    if odd and not common:
        lacking = next(e for e in evaluations if not union <= set(e.items))
        missing = sorted(union - set(lacking.items))
        raise DataError(
            f"{lacking.source}: does not answer {_listed(missing)}, which others do: evaluate the same items, or "
            "compare those that all have with --common"
        )
    return tuple(sorted(shared)), len(odd)


def _arm(name: str, evaluations: Sequence[Evaluation], items: Sequence[str]) -> Arm:
    seeds = [e.seed for e in evaluations]
    known = [seed for seed in seeds if seed is not None]
    if len(known) != len(set(known)) or (known and len(known) < len(seeds)):
        raise DataError(
            f"{evaluations[-1].source}: arm {name} has evaluations that no seed tells apart: name their seeds, or give "
            "them to different arms"
        )
    return Arm(
        name,
        tuple(seeds),
        np.array([_scores(e, items) for e in evaluations]),
        all(e.binary for e in evaluations),
        tuple(dict.fromkeys(e.model for e in evaluations)),
    )


def _scores(evaluation: Evaluation, items: Sequence[str]) -> list[float]:
    found = dict(zip(evaluation.items, map(float, evaluation.scores), strict=True))
    return [found[item] for item in items]


def _column(evaluation: Evaluation, items: Sequence[str], values: Iterable[str | None]) -> list[str | None]:
    found = dict(zip(evaluation.items, values, strict=True))
    return [found[item] for item in items]


def _clusters(evaluations: Sequence[Evaluation], items: Sequence[str]) -> Array | None:
    named = [column for e in evaluations if any(column := _column(e, items, e.clusters))]
    if not named:
        return None
    for item, *told in zip(items, *named, strict=True):
        if len(set(told)) > 1:
            raise DataError(f"item {item} is in different clusters: {', '.join(map(str, dict.fromkeys(told)))}")
    # An item without a cluster stands alone.
    numbers: dict[tuple[str, str | None], int] = {}
    keys = [("cluster", own) if own is not None else ("item", item) for item, own in zip(items, named[0], strict=True)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.float64)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"item{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}"
