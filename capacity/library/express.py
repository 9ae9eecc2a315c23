"""What an adapter can express against what a method learned: the best update that a search without gradients finds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import SpecError
from capacity.library.answers.search import search_blocks
from capacity.library.measured import prepare
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.specs import named_methods
from capacity.runs.cell import cells
from capacity.runs.study import Study
from capacity.spec.methods import place
from capacity.studies.device import device
from capacity_analysis.compare.expressible import Shares, shares_of
from capacity_reports.blocks import Block, Column

if TYPE_CHECKING:
    from capacity.studies.express import Search

_PARTS = ("base", "learned", "missed", "not_expressible")


@dataclass(frozen=True)
class ExpressedCell:
    """The four shares of one cell, with the seeds whose updates were searched for.

    Attributes:
        model, method: those of the cell.
        parameters: the number of trained parameters.
        adapter: the label of its adapter.
        seeds: how many runs there are.
        from_trained: how many best updates were found from the trained one; the others were found from zero.
        shares: base, learned, missed and not expressible.
    """

    model: str
    method: str
    parameters: int
    adapter: str
    seeds: int
    from_trained: int
    shares: Shares


@dataclass(frozen=True, repr=False)
class ExpressedStudy(Shown):
    """What the adapters of a study can express, cell by cell.

    Attributes:
        source: the folder of the study.
        search: how much was searched.
        cells: the cells, by model, method and size.
    """

    source: str
    search: "Search"
    cells: tuple[ExpressedCell, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "source": self.source,
            "search": asdict(self.search),
            "cells": [
                {
                    "model": c.model,
                    "method": c.method,
                    "adapter": c.adapter,
                    "trained_parameters": c.parameters,
                    "seeds": c.seeds,
                    "from_trained": c.from_trained,
                    **{part: getattr(c.shares, part).to_json() for part in _PARTS},
                }
                for c in self.cells
            ],
        }

    @property
    def line(self) -> str:
        """What the method misses most, in one sentence."""
        most = max(self.cells, key=lambda c: c.shares.missed.value)
        return (
            f"A search finds up to {most.shares.missed.points()} points that {most.method} misses, with "
            f"{most.parameters:,} parameters on {most.model}."
        )

    @property
    def blocks(self) -> Sequence[Block]:
        """The answer, the table, and what a search can and cannot tell."""
        columns = (
            Column("model", "model"),
            Column("method", "method"),
            Column("adapter", "parameters"),
            Column("seeds", "seeds", "count"),
        )
        rows = tuple((c.model, c.method, c.adapter, c.seeds, *_written(c.shares)) for c in self.cells)
        return search_blocks(self.line, columns, _PARTS, rows, "start", self.search)


def _written(shares: Shares) -> tuple[str, str, str, str]:
    return (
        shares.base.percent(),
        shares.learned.points(),
        shares.missed.points(),
        shares.not_expressible.percent(),
    )


def express(
    study: str | Path,
    *,
    methods: Sequence[str] = (),
    largest: int = 28,
    evaluations: int = 200,
    items: int = 512,
    progress: Progress = silent,
) -> ExpressedStudy:
    """Searches for the best update of every small TinyLoRA of a study, and compares it with what was learned.

    Args:
        study: a study folder.
        methods: the methods whose runs are taken; all if there is none.
        largest: runs of more parameters are left out.
        evaluations: how many updates each of the two starts tries.
        items: how many training items each update answers.
        progress: hears what is done.

    Raises:
        SpecError: if a number is out of range.
        DataError: if the study has no such run.
        CapacityError: if the libraries of training or of the search are absent.
    """
    if evaluations < 1 or items < 1 or largest < 1:
        raise SpecError("--evaluations, --items and --largest are 1 or more")
    chosen = named_methods(methods) if methods else ()
    folder = Study(Path(study))
    prepare()
    from capacity.studies.express import Search
    from capacity.studies.express import express as searched

    search = Search(evaluations, items)
    with progress("updates tried") as count:
        found = searched(folder, device(), search, largest=largest, methods=chosen, on_evaluation=count.on_count)
    grouped = cells(found, lambda e: e.run.cell)
    made = []
    for members in grouped.values():
        spec, result = members[0].run.spec, members[0].run.result
        arrays = (np.array([getattr(e, part) for e in members]) for part in ("base", "trained", "best"))
        made.append(
            ExpressedCell(
                spec.model, spec.method, result.trained_parameters, spec.adapter.label, len(members),
                sum(e.start == "trained" for e in members), shares_of(*arrays),
            )
        )  # fmt: skip
    made.sort(key=lambda c: (c.model, place(c.method), c.parameters, c.adapter))
    return ExpressedStudy(str(study), search, tuple(made))
