"""The runs of a source as rows, and the training curves of its runs as means over blocks of steps."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from capacity.runs.study import Run
from capacity.spec.result import Step
from capacity_analysis.data.absent import Absent
from capacity_analysis.thresholds.set_aside import CellSeeds
from capacity_reports.figures import METHODS, line_styles, variable
from capacity_reports.sources import Source

ROWS = 2000  # runs in the table
BLOCKS = 40  # points of a training curve
CURVES = 300  # runs with training curves
COLLAPSED = "collapsed, set aside"
_MOST = 12  # curves that are drawn at a time

# Key, heading, how it is written. The page leaves out what all trained runs share.
_COLUMNS = (
    ("model", "model", "text"),
    ("method", "method", "text"),
    ("trained_parameters", "trained parameters", "count"),
    ("seed", "seed", "count"),
    ("accuracy", "accuracy, %", "percent"),
    ("state", "state", "text"),
    ("learning_rate", "rate", "number"),
    ("split", "split", "text"),
    ("adapter", "adapter", "text"),
    ("storage_dtype", "dtype", "text"),
    ("demonstrations", "demonstrations", "text"),
    ("protocol", "protocol", "text"),
    ("n_items", "items", "count"),
)
QUANTITIES = (
    ("entropy_bits", "entropy, bits per token"),
    ("mean_length", "tokens per completion"),
    ("reward", "mean reward"),
    ("kl_to_base_bits", "KL to the base, bits per token"),
    ("loss", "loss"),
)


def runs(source: Source, aside: CellSeeds = frozenset()) -> dict[str, Any]:
    """The rows of the points table, trained runs first: columns, values by row, and how many runs there are in all.

    Args:
        source: what was read.
        aside: the runs of seeds that collapsed, as cell and seed. Their state says so.
    """
    if isinstance(source.points, Absent):
        return {"columns": [], "rows": [], "total": 0, "ids": []}
    frame = source.points.frame
    places = zip(frame["cell"], frame["seed"], strict=True)
    frame = frame.assign(state=[COLLAPSED if place in aside else None for place in places])
    trained = frame["trained_parameters"] > 0
    shown = pd.concat([frame[trained], frame[~trained]]).head(ROWS)
    kept = [column for column in _COLUMNS if frame[column[0]].notna().any()]
    ids = [None if pd.isna(name) else str(name) for name in shown["run"]]
    values = [[_plain(value) for value in shown[key]] for key, _, _ in kept]
    return {
        "columns": [{"key": key, "heading": heading, "kind": kind} for key, heading, kind in kept],
        "rows": [list(row) for row in zip(*values, strict=True)],
        "ids": ids,
        "total": len(frame),
    }


def _plain(value: Any) -> str | int | float | None:
    if pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.6g}")


def curves(source: Source) -> dict[str, Any]:
    """The training curves of at most `CURVES` runs on the reported split, those of the smallest seeds first.

    Each value is the mean over a block of steps; a curve has at most `BLOCKS` of them.
    """
    trained = sorted(source.trained, key=lambda run: run.spec.seed)
    kept = trained[:CURVES]
    return {
        "inks": {method: _shades(method) for method in METHODS},
        "most": _MOST,
        "quantities": [{"key": key, "heading": heading} for key, heading in QUANTITIES],
        "runs": {run.spec.short_id: _curve(run) for run in kept},
        "total": len(trained),
    }


def _shades(method: str) -> list[str]:
    """The colours of the first lines of a method, as variables of the page's style."""
    return [variable(colour) for colour, _, _ in line_styles([f"{method} {place}" for place in range(3)]).values()]


def _curve(run: Run) -> dict[str, Any]:
    steps = run.steps
    width = max(1, -(-len(steps) // BLOCKS))
    blocks = [steps[start : start + width] for start in range(0, len(steps), width)]
    values = {key: [_mean(block, key) for block in blocks] for key, _ in QUANTITIES}
    return {
        "label": run.spec.label,
        "method": run.spec.method,
        "steps": [block[-1].step + 1 for block in blocks],
        **{key: found for key, found in values.items() if any(value is not None for value in found)},
    }


def _mean(block: Sequence[Step], key: str) -> float | None:
    known = [value for step in block if (value := getattr(step, key)) is not None]
    return float(f"{sum(known) / len(known):.4g}") if known else None
