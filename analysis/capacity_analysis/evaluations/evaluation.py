"""Graded answers of one arm to one task, item by item, as every format gives them."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capacity.errors import DataError, SpecError
from capacity_analysis.types import Array

NOT_KNOWN = "not known"
STATE = "trainer_state.json"  # what the trainers of transformers and TRL write into the folder of a checkpoint


@dataclass(frozen=True)
class Reading:
    """What a person says of sources that do not say it themselves.

    Attributes:
        metric: which of several grades to take; of lm-evaluation-harness with its filter, "exact_match,strict-match".
        columns: of a plain table, the names of its columns by what they mean: {"item": "question_id"}.
    """

    metric: str | None = None
    columns: tuple[tuple[str, str], ...] = ()


def arm_name(path: Path) -> str:
    """Returns the name of an arm that nobody named: that of its folder, or that of its file without the ending.

    The state of a trainer has the same name in every checkpoint, so its arm has the name of the folder.
    """
    if path.name == STATE:
        return arm_name(path.parent)
    if not path.is_dir():
        return path.stem
    return path.resolve().name if path.name in ("", "..") else path.name


@dataclass(frozen=True)
class Answer:
    """One graded completion.

    Attributes:
        item: the name of the item.
        score: 0, 1, or a share of 1.
        content: a digest of what was asked and expected; None if the source does not say it.
        cluster: items that belong together, such as those of one document; None if they do not.
        sample: which completion of the item; None if the source has one of each.
    """

    item: str
    score: float
    content: str | None = None
    cluster: str | None = None
    sample: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The answers of one arm with one seed to one task.

    Attributes:
        arm, task, metric: names.
        seed: of the training; None if the source does not say it.
        items: names of the I items, sorted.
        contents, clusters: of the items, as in `Answer`.
        scores: mean score of each item, (I,).
        samples: completions of each item, (I,).
        source: where it was read.
        model: what answered, as the source says; "not known" if it does not.
        facts: what else the source says of the run, by the names of columns of the points table.
    """

    arm: str
    task: str
    metric: str
    seed: int | None
    items: tuple[str, ...]
    contents: tuple[str | None, ...]
    clusters: tuple[str | None, ...]
    scores: Array
    samples: Array
    source: str
    model: str = NOT_KNOWN
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def accuracy(self) -> float:
        """The mean over items."""
        return float(self.scores.mean())

    @property
    def binary(self) -> bool:
        """Whether each item has one answer that is right or wrong."""
        return bool((self.samples == 1).all() and np.isin(self.scores, (0.0, 1.0)).all())


@dataclass(slots=True)  # a log may have millions of items
class _Item:
    content: str | None
    cluster: str | None
    total: float = 0.0
    samples: set[str | None] = field(default_factory=set)


@dataclass
class Collected:
    """Answers as they are read, summed up item by item: a log of any length needs the memory of its items."""

    source: str
    _items: dict[str, _Item] = field(default_factory=dict)

    def add(self, answer: Answer, where: str) -> None:
        """Adds an answer.

        Args:
            answer: as read.
            where: the place in the source, for the error message.

        Raises:
            DataError: the item was answered already, asks something else, or its score is not from 0 to 1.
        """
        if not (math.isfinite(answer.score) and 0 <= answer.score <= 1):
            hint = ": percent? give shares of 1" if 1 < answer.score <= 100 else ""
            raise DataError(f"{self.source}: {where}: a score of {answer.score:g} is not from 0 to 1{hint}")
        item = self._items.setdefault(answer.item, _Item(answer.content, answer.cluster))
        if answer.sample in item.samples:
            raise DataError(
                f"{self.source}: {where}: item {answer.item} is there twice: remove one, or number the samples of "
                "an item in a column sample"
            )
        if item.content != answer.content:
            raise DataError(f"{self.source}: {where}: item {answer.item} asks something else than before")
        if item.cluster != answer.cluster:
            raise DataError(f"{self.source}: {where}: item {answer.item} is in another cluster than before")
        item.total += answer.score
        item.samples.add(answer.sample)

    def evaluation(self, arm: str, task: str, metric: str, seed: int | None, model: str = NOT_KNOWN) -> Evaluation:
        """What was collected.

        Raises:
            DataError: nothing was.
        """
        if not self._items:
            raise DataError(f"{self.source}: no graded answers")
        names = sorted(self._items)
        found = [self._items[name] for name in names]
        samples = np.array([len(item.samples) for item in found], dtype=np.float64)
        return Evaluation(
            arm, task, metric, seed, tuple(names), tuple(i.content for i in found), tuple(i.cluster for i in found),
            np.array([item.total for item in found]) / samples, samples, self.source, model,
        )  # fmt: skip


def digest(*texts: str) -> str:
    """What stands for a prompt and its expected answer, 16 hex digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def chosen(metric: str | None, offered: Iterable[str], source: str | Path) -> str:
    """The metric to read.

    Raises:
        SpecError: several are offered and none is named, or the named one is not there.
    """
    names = sorted(set(offered))
    if not names:
        raise DataError(f"{source}: no grades: it names no metric")
    if metric is None:
        if len(names) == 1:
            return names[0]
        raise SpecError(f"{source}: has several metrics: choose one with --metric: {', '.join(names)}")
    if metric not in names:
        raise SpecError(f"{source}: has no metric {metric}: choose from {', '.join(names)}")
    return metric
