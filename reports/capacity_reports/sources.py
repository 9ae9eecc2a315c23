"""What a report reads: a study folder, a points table or published figures, each read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from capacity.errors import CapacityError, DataError
from capacity.runs import files
from capacity.runs.mixed import refuse_mixed
from capacity.runs.study import Failure, Run, Study
from capacity.spec.methods import in_order
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Item, Split
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, study_points
from capacity_analysis.data.where import where
from capacity_analysis.evaluations.points import holds_results
from capacity_analysis.lengths.looked_up import configurations, train_items

_Made = TypeVar("_Made")


def prompt_of(spec: RunSpec, item: str) -> str | Absent:
    """The prompt of an item of a run's task and split."""
    found = _item(spec, item)
    return found if isinstance(found, Absent) else found.prompt or "\n".join(text for _, text in found.messages)


def answer_of(spec: RunSpec, item: str) -> str | Absent:
    """The reference answer of an item of a run's task and split."""
    found = _item(spec, item)
    return found if isinstance(found, Absent) else found.answer


def _item(spec: RunSpec, item: str) -> Item | Absent:
    found = _items(spec.task.model_dump_json(), spec.evaluation.split)
    if isinstance(found, Absent):
        return found
    return found.get(item, Absent(f"task {spec.task.name} has no item {item}"))


@cache
def _items(task: str, split: Split) -> dict[str, Item] | Absent:
    spec = TaskSpec.model_validate_json(task)
    try:
        return {item.id: item for item in open_task(spec).items(split)}
    except CapacityError:
        return Absent(f"the items of task {spec.name} are not at hand")


@dataclass(frozen=True)
class Lookups:
    """What a report cannot know from a study alone. By default tasks and shipped learning rates are asked.

    Attributes:
        train_items: how many items the train split of a run's task has.
        configurations: among how many the learning rate of a run of so many trained parameters was chosen.
        prompt: the prompt of an item, by its name.
        answer: the reference answer of an item, by its name.
    """

    train_items: Callable[[RunSpec], int | Absent] = train_items
    configurations: Callable[[RunSpec, int], int | Absent] = configurations
    prompt: Callable[[RunSpec, str], str | Absent] = prompt_of
    answer: Callable[[RunSpec, str], str | Absent] = answer_of


class LoadedStudy(Study):
    """A study folder whose runs are read once and kept."""

    @cached_property
    def _runs(self) -> list[Run]:
        return super().runs()

    def runs(self) -> list[Run]:
        """The complete runs, as they were when first asked for."""
        return list(self._runs)


@dataclass(frozen=True)
class Source:
    """A study or a table to report on.

    Attributes:
        name: the heading: the name that the study file gives, or that of the folder.
        path: the path as given.
        question: the question of the study file, or "".
        predictions: what the study file predicted before the runs were made.
        points: the points table, or why there is none.
        study: the folder; None for tables.
        runs: the complete runs; none for tables.
        failures: the failed runs with their diagnosis.
        lost: the planned runs that are not complete, failed ones among them.
    """

    name: str
    path: str
    question: str
    predictions: tuple[str, ...]
    points: Points | Absent
    study: Study | None = None
    runs: tuple[Run, ...] = ()
    failures: tuple[Failure, ...] = ()
    lost: tuple[RunSpec, ...] = ()

    @property
    def trained(self) -> list[Run]:
        """The complete runs of trained updates on the reported split."""
        return [run for run in self.runs if run.spec.training is not None and run.spec.evaluation.split == "test"]

    @property
    def missing(self) -> list[str]:
        """Labels of planned runs that neither are complete nor failed."""
        failed = {failure.run for failure in self.failures}
        return [spec.label for spec in self.lost if spec.short_id not in failed]


def read_source(source: str, *, allow_mixed: bool = False) -> Source:
    """Reads a study folder, a points table, results of other programs, or `reference:NAME`.

    Raises:
        CapacityError: there is no such source, or its runs are corrupt or of different environments.
    """
    folder = Path(source)
    if not folder.is_dir() or holds_results(folder):
        points = read_points(source)
        return Source(source.removeprefix("reference:") if ":" in source else folder.stem, source, "", (), points)
    study = LoadedStudy(folder)
    runs, failures = study.runs(), study.failures()
    known = {run.spec.identity for run in runs}
    lost = tuple(spec for spec in study.plan() if spec.identity not in known)
    if not runs and not failures and not lost:
        raise DataError(f"{source}: an empty study: no run is complete, failed or planned")
    refuse_mixed(runs, folder, allow_mixed=allow_mixed)
    table = study_points(folder, runs) if runs else Absent("no run of this study is complete")
    described = _table(folder / "study.json")
    return Source(
        name=str(described.get("name") or folder.resolve().name),
        path=source,
        question=str(described.get("question") or ""),
        predictions=tuple(str(p) for p in described.get("predictions") or ()),
        points=table,
        study=study,
        runs=tuple(runs),
        failures=tuple(failures),
        lost=lost,
    )


def chosen(source: Source, conditions: Sequence[str]) -> Source:
    """The source with the runs that meet all conditions `field=value`.

    Raises:
        SpecError: an unknown field or value.
    """
    if not conditions or isinstance(source.points, Absent):
        return source
    points = where(source.points, conditions)
    kept = set(points.frame["run"])
    return replace(source, points=points, runs=tuple(run for run in source.runs if run.short_id in kept))


def _table(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty if there is no such file."""
    if not path.exists():
        return {}
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object: remove it")
    return found


def attempt(make: Callable[[], _Made], source: str = "") -> _Made | Absent:
    """What `make` gives, or why it cannot be had. The reason leaves out the name of the page's own `source`."""
    try:
        return make()
    except CapacityError as error:
        return Absent(str(error).removeprefix(f"{source}: "))


def ordered(methods: Sequence[str]) -> list[str]:
    """Methods in the order in which they are always shown."""
    return in_order(set(methods))
