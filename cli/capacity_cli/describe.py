"""`capacity describe`: description lengths of a study's runs, side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import SpecError
from capacity.runs.study import Study, one_fingerprint
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent

if TYPE_CHECKING:
    from capacity_analysis.lengths.descriptions import CellLengths, Description
    from capacity_analysis.lengths.quantities import Value


def describe_command(
    folder: Path,
    epsilon: float | None,
    configurations: int | None,
    where: Sequence[str],
    *,
    allow_mixed: bool,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    if epsilon is not None and not 0 <= epsilon < float("inf"):
        raise SpecError(f"--epsilon {epsilon}: give bits a token, 0 or above")
    from capacity_analysis.data.where import runs_where
    from capacity_analysis.lengths import looked_up
    from capacity_analysis.lengths.descriptions import describe

    runs = runs_where(folder, Study(folder).runs(), where)
    one_fingerprint(runs, folder, allow_mixed=allow_mixed)

    def tried(spec: RunSpec, trained_parameters: int) -> int | Absent:
        return looked_up.configurations(spec, trained_parameters) if configurations is None else configurations

    found = describe(runs, configurations=tried, epsilon=epsilon)
    if as_json:
        print(json.dumps({"study": str(folder), **_json(found)}, indent=1, allow_nan=False))
        return
    from capacity_reports.blocks import Figure
    from capacity_reports.render.terminal import show
    from capacity_reports.sections.lengths import section_of

    show(block for block in section_of(found).blocks if not isinstance(block, Figure))


def _json(found: "Description") -> dict[str, Any]:
    return {"arms": [_cell_json(one) for one in found.cells], "warnings": list(found.warnings)}


def _cell_json(one: "CellLengths") -> dict[str, Any]:
    return {
        "cell": one.cell.identity,
        "differs": one.differs,
        "model": one.model,
        "method": one.method,
        "demonstrations": one.demonstrations,
        "adapter": one.adapter,
        "trained_parameters": one.trained_parameters,
        "storage_dtype": one.storage_dtype,
        "learning_rate": one.learning_rate,
        "seeds": list(one.seeds),
        "quantities": {key: _value_json(value) for key, value in one.values.items()},
    }


def _value_json(value: "Value") -> dict[str, Any]:
    return {"not_measured": value.reason} if isinstance(value, Absent) else asdict(value)
