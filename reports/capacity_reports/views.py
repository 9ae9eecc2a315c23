"""The parts of a source that may be compared: rows of one task, one kind of demonstrations and one storage dtype.

Thresholds, configurations and savings come from `capacity_analysis`; here they are only asked for and kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from capacity.plan.looks import read_looks
from capacity_analysis.bits.cells import MeasuredCells, measured_cells
from capacity_analysis.bits.frontier import FrontierPoint, frontier
from capacity_analysis.bits.savings import Saving, mean_curves, savings
from capacity_analysis.compare.comparison import Comparison, comparisons
from capacity_analysis.compare.looks import repeated
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.data.select import Selection
from capacity_analysis.data.table import Points
from capacity_analysis.data.where import conditions, where
from capacity_analysis.thresholds.answers import ThresholdStudy, study_thresholds
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.set_aside import CellSeeds
from capacity_reports.sources import Source, attempt

# Hears how many of the parts of a report are done, and which was the last.
Heard = Callable[[int, int, str], None]


def unheard(done: int, total: int, name: str) -> None:
    """Progress that nobody hears of."""


@dataclass(frozen=True)
class Options:
    """What is asked of a source, and how much is computed for it.

    Attributes:
        question: the target and what the intervals are for.
        seed: the seed of all random draws.
        null: the number of simulated studies in the null calibration of each pair; 0 for none.
        replicates: the number of replicates of the bootstrap behind frontier and savings.
    """

    question: Question = field(default_factory=Question)
    seed: int = 0
    null: int = 100
    replicates: int = 250


@dataclass(frozen=True)
class View:
    """Rows of a source that may be compared; a field is None where it was not recorded.

    Attributes:
        label: what tells it from the other views of the source, "" for the only one.
        thresholds: or why there are none.
    """

    task: str | None
    demonstrations: str | None
    storage_dtype: str | None
    label: str
    thresholds: ThresholdStudy | Absent


@dataclass(frozen=True)
class TaskCells:
    """All configurations of one task with their accuracy and place on the frontier; sizes are in `unit`."""

    task: str | None
    unit: str
    found: MeasuredCells
    places: tuple[FrontierPoint, ...]
    saved: tuple[Saving, ...] | Absent


@dataclass(frozen=True)
class Analysis:
    """Everything that is computed of one source.

    Attributes:
        views: at least one if there are trained test rows.
        parameters, update_bytes: configurations by task, or why there are none, in each unit.
        comparisons: methods at equal size, or why there are none.
    """

    source: Source
    options: Options
    views: tuple[View, ...]
    parameters: tuple[TaskCells | Absent, ...]
    update_bytes: tuple[TaskCells | Absent, ...]
    comparisons: tuple[Comparison, ...] | Absent

    @property
    def thresholds(self) -> list[tuple[View, ThresholdStudy]]:
        """The views that have thresholds."""
        return [(v, v.thresholds) for v in self.views if isinstance(v.thresholds, ThresholdStudy)]

    @property
    def aside(self) -> CellSeeds:
        """The runs of seeds that collapsed, as cell and seed; no threshold counts them."""
        return frozenset().union(*(e.aside for _, found in self.thresholds for e in found.evidence))


def analyse(source: Source, options: Options, heard: Heard = unheard) -> Analysis:
    """Asks the analysis for everything that a report shows.

    Args:
        source: what was read.
        options: what is asked.
        heard: hears of every part that is done.
    """
    points = source.points
    if isinstance(points, Absent):
        return Analysis(source, options, (), (points,), (points,), points)
    rows = points.frame[_reported(points)]
    places = _distinct(rows)
    tasks = list(dict.fromkeys(place[0] for place in places)) or [None]
    parts = len(places) + 2 * len(tasks) + 1
    views: list[View] = []
    for place in places:
        task, demonstrations, dtype = place
        on_pair = partial(_on_pair, heard, len(views), parts)
        found = _thresholds(points, place, options, on_pair)
        views.append(View(task, demonstrations, dtype, _label(places, place), found))
        heard(len(views), parts, "thresholds")
    cells: dict[str, list[TaskCells | Absent]] = {"parameters": [], "bytes": []}
    for unit, of_tasks in cells.items():
        for task in tasks:
            of_tasks.append(attempt(partial(_cells, points, task, unit, options), points.source))
            heard(len(views) + sum(map(len, cells.values())), parts, f"sizes in {unit}")
    compared = attempt(lambda: _comparisons(points, source), points.source)
    heard(parts, parts, "comparisons")
    return Analysis(source, options, tuple(views), tuple(cells["parameters"]), tuple(cells["bytes"]), compared)


def _on_pair(heard: Heard, done: int, parts: int, pair: int, pairs: int) -> None:
    heard(done, parts, f"null calibration {pair:,} of {pairs:,}")


def _comparisons(points: Points, source: Source) -> tuple[Comparison, ...]:
    """Those of the runs; in a study that was looked at several times, with intervals that allow for that."""
    found = comparisons(points, source.lost)
    looks = None if source.study is None else read_looks(source.study.folder)
    if looks is None:
        return found
    return tuple(repeated(one, looks, max((d.estimate.seeds for d in one.differences), default=0)) for one in found)


def _reported(points: Points) -> "pd.Series[bool]":
    """The trained rows of the split that results are reported on."""
    frame = points.frame
    trained = frame["trained_parameters"] > 0
    test = (frame["split"] != "validation").fillna(True)
    return trained & test if (trained & test).any() else trained


def _distinct(rows: pd.DataFrame) -> list[tuple[str | None, str | None, str | None]]:
    """The task, demonstrations and dtype of every view; methods without demonstrations belong to each kind."""
    found: dict[tuple[str | None, str | None], list[str | None]] = {}
    for task, dtype, shown in zip(rows["task"], rows["storage_dtype"], rows["demonstrations"], strict=True):
        kinds = found.setdefault((_plain(task), _plain(dtype)), [])
        kind = None if pd.isna(shown) or shown == UNSEEN else str(shown)
        if kind is not None and kind not in kinds:
            kinds.append(kind)
    return [(task, kind, dtype) for (task, dtype), kinds in found.items() for kind in (kinds or [None])]


def _plain(value: object) -> str | None:
    return None if pd.isna(value) else str(value)


def _label(places: Sequence[tuple[str | None, ...]], place: tuple[str | None, ...]) -> str:
    """The fields in which the views of a source differ."""
    varies = [len({p[i] for p in places}) > 1 for i in range(3)]
    return ", ".join(str(value) for value, told in zip(place, varies, strict=True) if told and value is not None)


def _thresholds(
    points: Points,
    place: tuple[str | None, str | None, str | None],
    options: Options,
    on_pair: Callable[[int, int], None],
) -> ThresholdStudy | Absent:
    task, demonstrations, dtype = place
    chosen = conditions(task=task, demonstrations=demonstrations, storage_dtype=dtype)
    return attempt(
        lambda: study_thresholds(
            where(points, chosen), Selection(), options.question, seed=options.seed, null=options.null, on_pair=on_pair
        ),
        points.source,
    )


def _cells(points: Points, task: str | None, unit: str, options: Options) -> TaskCells:
    """The configurations of each task in `unit`; savings take most of the time and are computed in one unit only."""
    frame = points.frame
    with_bytes = bool(frame.loc[frame["trained_parameters"] > 0, "update_bytes"].notna().all())
    found = measured_cells(where(points, conditions(task=task)), unit)  # type: ignore[arg-type]
    places = frontier(found, options.replicates, np.random.default_rng(options.seed))
    saved = (
        Absent("savings are computed in bytes")
        if unit == "parameters" and with_bytes
        else attempt(
            lambda: savings(found, mean_curves(found), options.replicates, np.random.default_rng([options.seed, 1]))
        )
    )
    return TaskCells(task, unit, found, places, saved)
