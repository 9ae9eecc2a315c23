"""What an adapter can express on a model that nobody trained: the best update that a search without gradients finds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import SpecError
from capacity.library.answers.search import search_blocks
from capacity.library.measured import prepare
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.defaults import default_size, default_weights
from capacity.plan.sizes import SizeChoice, as_choice
from capacity.studies.device import device
from capacity.tasks.catalog import parse_task
from capacity_analysis.compare.expressible import Reach, reach_of
from capacity_reports.blocks import Block, Column

if TYPE_CHECKING:
    from capacity.studies.express import Search

LARGEST = 112  # parameters: a search without gradients gets nowhere with more
_PARTS = ("base", "gained", "not_expressible")


@dataclass(frozen=True, repr=False)
class Expressible(Shown):
    """What an adapter can express on a model.

    Attributes:
        model: the name of the base.
        task: the task with its options.
        adapter: the label of the adapter.
        parameters: the number of its parameters.
        seeds: how many draws of its random parts were searched.
        search: how much was searched for each of them.
        reach: base, gained and not expressible.
    """

    model: str
    task: str
    adapter: str
    parameters: int
    seeds: int
    search: "Search"
    reach: Reach

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "model": self.model,
            "task": self.task,
            "adapter": self.adapter,
            "trained_parameters": self.parameters,
            "seeds": self.seeds,
            "search": asdict(self.search),
            **{part: getattr(self.reach, part).to_json() for part in _PARTS},
        }

    @property
    def line(self) -> str:
        """What the search found, in one sentence."""
        return (
            f"A search finds updates of {self.parameters:,} parameters that change the accuracy of {self.model} by "
            f"{self.reach.gained.points()} points."
        )

    @property
    def blocks(self) -> Sequence[Block]:
        """The answer, the table, and what a search can and cannot tell."""
        columns = (
            Column("model", "model"),
            Column("adapter", "parameters"),
            Column("seeds", "seeds", "count"),
        )
        row = (
            self.model,
            self.adapter,
            self.seeds,
            self.reach.base.percent(),
            self.reach.gained.points(),
            self.reach.not_expressible.percent(),
        )
        return search_blocks(self.line, columns, _PARTS, (row,), "seed", self.search)


def expressible(
    model: str = "abacus",
    size: SizeChoice | int | str | None = None,
    *,
    task: str = "abacus",
    seeds: int = 2,
    evaluations: int = 200,
    items: int = 512,
    progress: Progress = silent,
) -> Expressible:
    """Searches for the best update of an adapter on a model, from zero, once for each seed.

    Args:
        model: the name or folder of the base.
        size: a budget, or a choice part by part; 100 parameters if None. If it names no projection,
            `capacity.plan.defaults.default_size` does.
        task: the task, with options.
        seeds: how many draws of the random parts are searched.
        evaluations: how many updates each seed tries.
        items: how many training items each update answers.
        progress: hears what is done.

    Raises:
        SpecError: if a number is out of range, or the adapter has more than 112 parameters.
        CapacityError: if the libraries of training or of the search are absent.
    """
    if evaluations < 1 or items < 1 or seeds < 1:
        raise SpecError("--evaluations, --items and --seeds are 1 or more")
    named = default_weights(model)
    found, asked = default_size(named, as_choice(size), "fp32"), parse_task(task)
    if found.trained_parameters > LARGEST:
        raise SpecError(
            f"a search for {found.trained_parameters:,} parameters finds little: give at most {LARGEST}, "
            "such as --budget 13"
        )
    prepare()
    from capacity.studies.express import Search
    from capacity.studies.express_model import express_model

    search = Search(evaluations, items)
    with progress("updates tried") as count:
        reached = express_model(named, asked, found, range(seeds), device(), search, count.on_count)
    base, best = (np.array([getattr(r, part) for r in reached]) for part in ("base", "best"))
    label = found.template.label
    return Expressible(named, asked.label, label, found.trained_parameters, seeds, search, reach_of(base, best))
