"""`capacity plan`: sizes and groups of an update on a model, from shapes alone."""

import json

from rich.console import Console

import capacity
from capacity.plan.sampling import parse_choice
from capacity.plan.sizes import SizeChoice
from capacity_cli.choices import storage_dtype_choice
from capacity_reports.tables import rows_table


def plan_command(
    model: str,
    choice: SizeChoice,
    storage_dtype: str,
    *,
    list_modules: bool,
    as_json: bool,
    rollouts: str = "transformers",
    memory: str | None = None,
    new_tokens: int | None = None,
) -> None:
    """Prints the plan as a table or as JSON.

    Args:
        model: its name.
        choice: how large the update is to be.
        storage_dtype: what a budget in bytes or bits is counted in.
        list_modules: whether the adapted modules are listed.
        as_json: whether JSON is printed.
        rollouts: what samples; "vllm" adds the memory that trainer and engine share.
        memory: memory of the GPU that training is to fit, "24GB".
        new_tokens: length of the longest completion; that of the model's default task if None.
    """
    plan = capacity.plan_update(
        model, choice, storage_dtype=storage_dtype_choice(storage_dtype), memory=memory, new_tokens=new_tokens,
        rollouts=parse_choice(rollouts),
    )  # fmt: skip
    if as_json:
        print(json.dumps(plan.to_json() | ({"modules": plan.modules} if list_modules else {}), indent=1))
        return
    console = Console()
    console.print(rows_table(("", ""), plan.rows))
    if plan.memory.fit is not None:
        print(plan.memory.fit)
    if list_modules:
        listed = [
            (m["name"], f"{m['d']}×{m['k']}", "" if m["group"] is None else str(m["group"])) for m in plan.modules
        ]
        console.print(rows_table(("module", "shape", "group"), listed))
