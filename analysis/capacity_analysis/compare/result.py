"""The result of `capacity compare`: the one comparison of its planned runs, and its JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.runs.study import Run
from capacity.spec.run import RunSpec
from capacity_analysis.compare.comparison import ComparedCell, Comparison, Difference, comparisons
from capacity_analysis.compare.costs import Costs
from capacity_analysis.compare.verdicts import verdict
from capacity_analysis.compare.zero import ZeroControl
from capacity_analysis.data.table import study_points


def compare_runs(folder: Path, runs: Sequence[Run], specs: Sequence[RunSpec]) -> Comparison:
    """Compares the runs of one `capacity compare`.

    Args:
        folder: of their study.
        runs: complete ones; those that `specs` do not name are left out.
        specs: what was planned: cells of one size, and the untrained model.

    Raises:
        DataError: the run of the untrained model is missing, runs answered different items, or were made on different
            bases.
    """
    planned = {spec.identity for spec in specs}
    own = [run for run in runs if run.spec.identity in planned]
    done = {run.spec.identity for run in own}
    found = comparisons(study_points(folder, own), [s for s in specs if s.identity not in done]) if own else ()
    if len(found) == 1 and found[0].base is not None:
        return found[0]
    if len({run.result.base_fingerprint for run in own}) > 1:
        raise DataError(
            f"{folder}: its runs were made on different bases and cannot be compared: choose another --out, and all "
            "are made on the base as it is now"
        )
    raise DataError("the run of the untrained base is missing: run the comparison again")


def comparison_json(comparison: Comparison, costs: Mapping[str, Costs]) -> dict[str, Any]:
    """The comparison with its verdict as plain JSON types.

    Args:
        comparison: with an untrained model.
        costs: of every cell, by its identity.
    """
    assert comparison.base is not None
    at = comparison.base_by_temperature
    return {
        "model": comparison.recipe["model"],
        "task": comparison.task,
        "base": comparison.base.to_json("accuracy"),
        "base_by_temperature": {f"{t:g}": at[t].to_json("accuracy") for t in at},
        "best_temperature": comparison.best_temperature,
        "zero": None if comparison.zero is None else _zero(comparison.zero),
        "results": [_row(compared, costs[compared.cell.identity]) for compared in comparison.cells],
        "differences": [_difference(d) for d in comparison.differences],
        "incomplete": dict(comparison.incomplete),
        "verdict": verdict(comparison).sentence,
    }


def _zero(control: ZeroControl) -> dict[str, Any]:
    over = control.over_base
    return {
        "adapter": control.cell.adapter,
        **control.cell.accuracy.to_json("accuracy"),
        "over_base": None if over is None else over.to_json(),
        "changed_items": control.changed,
        "answered_items": control.answered,
    }


def _difference(d: Difference) -> dict[str, Any]:
    crossed, exchanged = d.estimate.crossed, d.exchanged
    return {
        "first": d.first,
        "second": d.second,
        **d.estimate.to_json(),
        "smallest_detectable": d.detectable,
        "seeds_differ_p": None if crossed is None else crossed.seeds_differ_p,
        "pooled_over_methods_p": None if crossed is None else crossed.pooled_p,
        "exchanging_seeds_p": None if exchanged is None else exchanged.p,
    }


def _row(compared: ComparedCell, costs: Costs) -> dict[str, Any]:
    cell, gain, over = compared.cell, compared.gain, compared.gain_over_best_temperature
    assert gain is not None
    return {
        "method": cell.method,
        "demonstrations": cell.demonstrations,
        "adapter": cell.adapter,
        "trained_parameters": cell.trained_parameters,
        "update_bytes": cell.update_bytes,
        "total_bytes": (cell.update_bytes or 0) + costs.header_bytes,
        "storage_dtype": cell.storage_dtype,
        "learning_rate": cell.learning_rate,
        **cell.accuracy.to_json("accuracy"),
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_over_best_temperature": None if over is None else over.to_json(),
        "accuracy_by_seed": cell.accuracies,
        "collapsed": asdict(compared.collapsed),
        **asdict(costs),
    }
