"""The description lengths of a study, cell by cell: from what its runs recorded, and nothing guessed.

Every quantity is a mean over the seeds of a cell with Student's interval, or the reason why it is absent. Code lengths
of demonstrations hold the noise of their wording, rewards are a channel's capacity, and an update's bits are those of a
file. They are shown side by side and never divided by one another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.errors import DataError
from capacity.runs.cell import Cell, cells, labels
from capacity.runs.study import Run
from capacity.spec.methods import place
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.lengths import demonstrations, looked_up, rewards, update
from capacity_analysis.lengths.quantities import Facts, Found, Measured, Value, over_seeds

QUANTITIES = (*demonstrations.QUANTITIES, *rewards.QUANTITIES, *update.QUANTITIES)


@dataclass(frozen=True)
class CellLengths:
    """The description lengths of one cell.

    Attributes:
        cell: its recipe.
        differs: what tells it from cells of the same model, method, demonstrations, adapter, size and storage dtype;
            "" if there are none.
        trained_parameters: size of its update.
        seeds: of its runs, ascending.
        values: the quantities by their keys.
    """

    cell: Cell
    differs: str
    trained_parameters: int
    seeds: tuple[int, ...]
    values: dict[str, Value]

    @property
    def model(self) -> str:
        """The model that was trained."""
        return self.cell.spec.model

    @property
    def method(self) -> str:
        """The method that trained it."""
        return self.cell.spec.method

    @property
    def demonstrations(self) -> str:
        """The style of the demonstrations; "none" for methods that see none."""
        return self.cell.spec.task.style

    @property
    def adapter(self) -> str:
        """The kind of its adapter."""
        return self.cell.spec.adapter.kind

    @property
    def storage_dtype(self) -> str:
        """The dtype of the stored update."""
        return self.cell.spec.storage_dtype

    @property
    def learning_rate(self) -> float:
        """The learning rate of the training."""
        assert self.cell.spec.training is not None
        return self.cell.spec.training.learning_rate


@dataclass(frozen=True)
class Description:
    """The whole table. `warnings` say which comparisons mean nothing, and what limits the others."""

    cells: tuple[CellLengths, ...]
    warnings: tuple[str, ...]

    @property
    def intervals(self) -> str:
        """What the intervals of the table are for, in one line."""
        found = [v.label for one in self.cells for v in one.values.values() if isinstance(v, Measured)]
        return f"Intervals: {'; '.join(dict.fromkeys(found))}."


def describe(
    runs: Sequence[Run],
    *,
    train_items: Callable[[RunSpec], int | Absent] = looked_up.train_items,
    configurations: Callable[[RunSpec, int], int | Absent] = looked_up.configurations,
    epsilon: float | None = None,
) -> Description:
    """The description lengths of a study's trained updates that are reported: those evaluated on the test split.

    Args:
        runs: complete runs; the untrained base and the trials of a tuning are left out.
        train_items: how many items the train split of a run's task has; once they repeat, the first pass is over.
        configurations: among how many learning rates that of a run of so many trained parameters was chosen.
        epsilon: loss of the surplus description length, bits a token; None: the final held-out loss of each run.

    Raises:
        DataError: no trained run on the test split, or metrics that cannot be read.
    """
    reported = [run for run in runs if run.spec.training is not None and run.spec.evaluation.split == "test"]
    if not reported:
        raise DataError("no complete run of a trained update on the test split: nothing to describe")
    grouped = cells(reported, lambda run: run.cell)
    sizes = {cell: members[0].result.trained_parameters for cell, members in grouped.items()}
    differs = labels({cell: _columns(cell, size) for cell, size in sizes.items()})
    found = []
    for cell, members in grouped.items():
        items, tried = train_items(cell.spec), configurations(cell.spec, sizes[cell])
        rows = [_measure(Facts(run, items, tried, epsilon)) for run in members]
        found.append(
            CellLengths(
                cell=cell,
                differs=differs[cell],
                trained_parameters=sizes[cell],
                seeds=tuple(run.spec.seed for run in members),
                values={q.key: over_seeds([row[q.key] for row in rows]) for q in QUANTITIES},
            )
        )
    found.sort(key=_place)
    return Description(tuple(found), tuple(_warnings(found)))


def by_demonstrations(found: Sequence[CellLengths]) -> dict[str, list[CellLengths]]:
    """The cells to be read together, by the style of demonstrations; methods that see none stand with each."""
    styles = list(dict.fromkeys(one.demonstrations for one in found if one.demonstrations != UNSEEN)) or [UNSEEN]
    return {style: [one for one in found if one.demonstrations in (style, UNSEEN)] for style in styles}


def _columns(cell: Cell, trained_parameters: int) -> tuple[object, ...]:
    """What a table of description lengths says of a cell in any case."""
    spec = cell.spec
    return spec.model, spec.method, spec.task.style, spec.adapter.kind, trained_parameters, spec.storage_dtype


def _place(one: CellLengths) -> tuple[object, ...]:
    method = place(one.method), one.demonstrations
    return one.model, one.trained_parameters, one.adapter, method, one.storage_dtype, one.learning_rate, one.differs


def _measure(facts: Facts) -> dict[str, Found]:
    """All quantities of one run."""
    return demonstrations.measure(facts) | rewards.measure(facts) | update.measure(facts)


def _warnings(found: Sequence[CellLengths]) -> list[str]:
    said = [
        "Code lengths of demonstrations hold noise that cannot be learnt, reward bits are what a channel can carry at "
        "most, update bits are the size of a file: different quantities, not to be divided by one another. Compare "
        "excess description length with reward bits, as bits learnt against a cap."
    ]
    several = len(by_demonstrations(found)) > 1
    alone = sum(len(one.seeds) == 1 for one in found)
    if alone:
        said.append(f"{alone} of {len(found)} cells have one seed and no interval.")
    for one in found:
        excess = one.values["excess_bits"]
        if isinstance(excess, Measured) and excess.estimate < 0:
            style = f" on {one.demonstrations}" if several else ""
            differs = f" ({one.differs})" if one.differs else ""
            said.append(
                f"{one.method}{style} with {one.trained_parameters:,} parameters{differs}: excess description length "
                "is negative: it codes held-out demonstrations worse at the end than those of the training on the way."
            )
    bounds = [one.values["gap_two_part"] for one in found]
    vacuous = sum(isinstance(bound, Measured) and bound.estimate >= 1 for bound in bounds)
    if vacuous:
        said.append(f"The generalisation bound of {vacuous} cells is 1 or more, which says nothing (vacuous).")
    if any(one.method == "rft" for one in found):
        said.append(
            "rft repeats correct samples until a prompt has as many as grpo draws; each copy is coded, so its code "
            "lengths are those of the sequences trained on, more than the different samples need."
        )
    if any(one.method == "random-reward" for one in found):
        said.append("Rewards of random-reward are permuted: their bits say nothing about the task.")
    return said
