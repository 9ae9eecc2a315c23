"""Accuracy against size as a table: one row an arm, over its seeds, with the interval for fresh seeds and items."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from capacity.runs.study import Run
from capacity.spec.methods import Method, place
from capacity.spec.run import RunSpec
from capacity_analysis.compare.comparison import outcome_matrix
from capacity_analysis.statistics.intervals import Interval, accuracy_interval


@dataclass(frozen=True)
class SizeRow:
    """One model, method, size and rate. `temperature`: of the evaluation, for the untrained model."""

    model: str
    method: Method
    demonstrations: str
    adapter: str
    trained_parameters: int
    learning_rate: float | None
    temperature: float
    accuracy: Interval

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        interval = self.accuracy
        base = self.method == "base"
        return (
            self.model,
            f"base T={self.temperature:g}" if base else self.method,
            "" if self.demonstrations == "none" else self.demonstrations,
            "" if base else self.adapter,
            f"{self.trained_parameters:,}",
            "" if self.learning_rate is None else f"{self.learning_rate:g}",
            f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})",
            "" if base else str(interval.seeds),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        interval = self.accuracy
        plain = {k: v for k, v in vars(self).items() if k != "accuracy"}
        measured = {"accuracy": interval.estimate, "low": interval.low, "high": interval.high}
        return {**plain, **measured, "seeds": interval.seeds, "n_items": interval.items}


def size_rows(runs: Iterable[Run]) -> list[SizeRow]:
    """The rows of a study on the test split, by model, size and method."""
    arms: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.spec.evaluation.split == "test":
            arms.setdefault(_arm(run.spec, run.result.trained_parameters), []).append(run)
    rows = [_row(arm) for arm in arms.values()]
    return sorted(rows, key=_order)


def _arm(spec: RunSpec, trained_parameters: int) -> tuple[Any, ...]:
    """What runs that differ only in their seed have in common."""
    seeded = ("projection_seed", "init_seed")
    adapter = {k: v for k, v in spec.adapter.model_dump(mode="json").items() if k not in seeded}
    fields = spec.model_dump(mode="json", exclude={"seed", "adapter"})
    return str(adapter), str(fields), trained_parameters


def _row(runs: Sequence[Run]) -> SizeRow:
    spec = runs[0].spec
    return SizeRow(
        spec.model,
        spec.method,
        spec.task.style,
        spec.adapter.kind,
        runs[0].result.trained_parameters,
        spec.training.learning_rate if spec.training else None,
        spec.evaluation.temperature,
        accuracy_interval(outcome_matrix(runs)),
    )


def _order(row: SizeRow) -> tuple[Any, ...]:
    return row.model, row.trained_parameters, place(row.method), row.demonstrations, row.temperature
