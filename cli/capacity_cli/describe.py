"""`capacity describe`: description lengths of a study's runs, side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from capacity.errors import CapacityError, SpecError
from capacity.runs.study import Study, one_fingerprint
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_cli.bits import terminal
from capacity_reports.tables import rows_table

if TYPE_CHECKING:
    from capacity_analysis.lengths.descriptions import DescribedArm, Description, Quantity, Value


def describe_command(
    folder: Path, epsilon: float | None, configurations: int | None, *, allow_mixed: bool, as_json: bool
) -> None:
    """Everything between the options and the printed result."""
    if epsilon is not None and not 0 <= epsilon < float("inf"):
        raise SpecError(f"--epsilon {epsilon}: give bits a token, 0 or above")
    from capacity_analysis.lengths.descriptions import describe

    runs = Study(folder).runs()
    one_fingerprint(runs, folder, allow_mixed=allow_mixed)

    def tried(spec: RunSpec, trained_parameters: int) -> int | Absent:
        return configurations if configurations is not None else configurations_tried(spec, trained_parameters)

    found = describe(runs, train_items=train_items, configurations=tried, epsilon=epsilon)
    if as_json:
        print(json.dumps({"study": str(folder), **_json(found)}, indent=1, allow_nan=False))
        return
    console = terminal()
    console.print(_view(found), highlight=False, soft_wrap=not console.is_terminal)


def train_items(spec: RunSpec) -> int | Absent:
    """How many items the train split of a run's task has."""
    return _train_items(spec.task.model_dump_json())


@cache
def _train_items(task: str) -> int | Absent:
    from capacity.spec.parts import TaskSpec
    from capacity.tasks.catalog import open_task

    spec = TaskSpec.model_validate_json(task)
    try:
        return len(open_task(spec).items("train"))
    except CapacityError:
        return Absent(f"the train split of task {spec.name} is not at hand, so the first pass has no known end")


def configurations_tried(spec: RunSpec, trained_parameters: int) -> int | Absent:
    """Among how many learning rates the run's was chosen, if it is the one that ships for its method and size."""
    from capacity.plan.rates import shipped, tuned_rate
    from capacity.spec.methods import METHODS

    assert spec.training is not None
    method, kind = METHODS[spec.method].rate_from, spec.adapter.kind
    unknown = Absent("how many learning rates were tried is not recorded: give --configurations")
    try:
        tuned = tuned_rate(spec.model, spec.task, spec.method, kind, trained_parameters)
    except CapacityError:
        return unknown
    if tuned.tuned_at is None or tuned.learning_rate != spec.training.learning_rate:
        return unknown
    wanted = (spec.model, spec.task.name, method, kind, tuned.tuned_at)
    names = ("model", "task", "method", "adapter", "trained_parameters")
    rows = [row for row in shipped() if tuple(row[name] for name in names) == wanted]
    styled = [row for row in rows if method != "sft" or row["demonstrations"] == spec.task.demonstrations]
    return len(styled[0]["trials"])


def _json(found: "Description") -> dict[str, Any]:
    arms = []
    for arm in found.arms:
        fields = {name: value for name, value in vars(arm).items() if name != "values"}
        arms.append({**fields, "quantities": {key: _value_json(value) for key, value in arm.values.items()}})
    return {"arms": arms, "warnings": list(found.warnings)}


def _value_json(value: "Value") -> dict[str, Any]:
    return {"not_measured": value.reason} if isinstance(value, Absent) else asdict(value)


def _view(found: "Description") -> RenderableType:
    from capacity_analysis.lengths.descriptions import by_demonstrations

    parts: list[RenderableType] = []
    for (model, size, adapter), members in groupby(
        found.arms, key=lambda a: (a.model, a.trained_parameters, a.adapter)
    ):
        styles = by_demonstrations(list(members))
        for style, arms in styles.items():
            shown = f", demonstrations {style}" if len(styles) > 1 else ""
            parts.append(Text(f"{model}, {size:,} trained parameters ({adapter}){shown}", style="bold"))
            parts += [*_arms_view(arms), Text("")]
    parts.extend(Text(warning) for warning in found.warnings)
    return Group(*parts)


def _arms_view(arms: "Sequence[DescribedArm]") -> list[RenderableType]:
    """A table of all quantities, and why some are not measured."""
    from capacity_analysis.lengths.descriptions import QUANTITIES

    reasons: dict[str, int] = {}
    rows = [
        (q.words, q.unit, *(_cell(arm.values[q.key], reasons) for arm in arms))
        for q in QUANTITIES
        if not all(isinstance(arm.values[q.key], Absent) for arm in arms) or _worth_saying(q, arms)
    ]
    table = rows_table(("", "unit", *map(_heading, arms)), rows)
    return [table, *(Text(f"[{number}] not measured: {reason}") for reason, number in reasons.items())]


def _heading(arm: "DescribedArm") -> str:
    return f"{arm.method} {arm.storage_dtype} ({len(arm.seeds)} seed{'s' if len(arm.seeds) > 1 else ''})"


def _worth_saying(quantity: "Quantity", arms: "Sequence[DescribedArm]") -> bool:
    """A row that applies to none of the arms is left out; one that was not recorded is shown."""
    values = [arm.values[quantity.key] for arm in arms]
    return any(not value.reason.startswith("does not apply") for value in values if isinstance(value, Absent))


def _cell(value: "Value", reasons: dict[str, int]) -> str:
    """ "1,234 (1,100–1,368)", or the number of the reason why there is nothing."""
    if isinstance(value, Absent):
        if value.reason.startswith("does not apply"):
            return "–"
        return f"[{reasons.setdefault(value.reason, len(reasons) + 1)}]"
    sign = "≥ " if value.at_least else ""
    known = value.low is not None and value.high is not None and value.low < value.high  # sizes are equal for all seeds
    ends = f" ({_number(value.low or 0.0)} to {_number(value.high or 0.0)})" if known else ""
    return f"{sign}{_number(value.estimate)}{ends}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
