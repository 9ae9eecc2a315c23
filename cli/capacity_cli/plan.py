"""`capacity plan`: sizes and groups of an update on a model, from shapes alone."""

import json

from rich.console import Console

from capacity.adapters.budget import Budget
from capacity.adapters.sharing import group_sizes
from capacity.adapters.storage import STORAGE_DTYPES, payload_bytes
from capacity.errors import SpecError
from capacity.models.aliases import ALIASES, resolve
from capacity_cli.choices import sharing_choice, storage_dtype_choice
from capacity_reports.tables import rows_table


def plan_command(
    model: str,
    budget: str | None,
    adapter: str | None,
    rank: int,
    u: int | None,
    groups: int | None,
    n_tie: int | None,
    sharing: str,
    storage_dtype: str,
    *,
    list_modules: bool,
    as_json: bool,
) -> None:
    """Prints the plan as a table or as JSON."""
    from capacity.training.pairs import size_from_budget, size_from_choice

    alias, how, dtype = resolve(model), sharing_choice(sharing), storage_dtype_choice(storage_dtype)
    choice = {"--adapter": adapter, "--u": u, "--groups": groups, "--n-tie": n_tie}
    given = [name for name, value in choice.items() if value is not None]
    if budget is not None and given:
        raise SpecError(f"give --budget, or {', '.join(given)}, not both")
    if budget is None and not given:
        budget = "100"
    if budget is not None:
        size = size_from_budget(alias, Budget.parse(budget), dtype, how, rank)
    else:
        size = size_from_choice(alias, adapter or "tinylora", rank=rank, u=u, groups=groups, n_tie=n_tie, sharing=how)
    shape, solution = ALIASES[alias].shape, size.solution
    shapes = shape.adapted_modules()
    assignment = size.group_of_module
    plan = {
        "model": alias,
        "source": ALIASES[alias].source,
        "family": shape.family,
        "model_parameters": shape.parameters,
        "adapter": solution.adapter,
        "rank": solution.rank,
        "u": solution.u,
        "sharing": how if assignment is not None else None,
        "trained_parameters": solution.trained_parameters,
        "adapted_modules": len(shapes),
        "groups": solution.groups,
        "group_sizes": [] if assignment is None else list(group_sizes(assignment)),
        "update_bytes": {d: payload_bytes(solution.trained_parameters, d) for d in STORAGE_DTYPES},
    }
    if list_modules:
        plan["modules"] = [
            {"name": m.name, "d": m.d, "k": m.k, "group": assignment[i] if assignment is not None else None}
            for i, m in enumerate(shapes)
        ]
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    rows = [(key.replace("_", " "), _text(value)) for key, value in plan.items() if key != "modules"]
    console = Console()
    console.print(rows_table(("", ""), [r for r in rows if r[1]]))
    if list_modules:
        listed = [
            (m.name, f"{m.d}×{m.k}", "" if assignment is None else str(assignment[i])) for i, m in enumerate(shapes)
        ]
        console.print(rows_table(("module", "shape", "group"), listed))


def _text(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {count:,} B" for key, count in value.items())
    if isinstance(value, list):
        runs: list[list[int]] = []
        for size in value:
            if runs and runs[-1][0] == size:
                runs[-1][1] += 1
            else:
                runs.append([size, 1])
        return ", ".join(f"{size} × {count}" for size, count in runs)
    return str(value)
