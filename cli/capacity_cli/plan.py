"""`capacity plan`: sizes and groups of an update on a model, from shapes alone."""

import json
from typing import Any

from rich.console import Console

from capacity.plan.defaults import default_run, default_weights
from capacity.plan.engine_memory import shared_plan
from capacity.plan.memory import gigabytes, longest_completion, run_memory
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES, model_shape
from capacity.plan.sampling import parse_choice, rollout_spec
from capacity.plan.sharing import group_sizes
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.storage import FIXED_SIZE_DTYPES, payload_bytes
from capacity.spec.run import RunSpec
from capacity_cli.choices import storage_dtype_choice
from capacity_cli.plan_memory import fit_text, memory_of, memory_text, parse_memory
from capacity_reports.tables import rows_table

_OPTIONS = tuple(name for name in SizeChoice.model_fields if name not in ("budget", "adapter", "n_tie"))
_LARGE = 10**8  # bytes from which on they are shown in GB


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
    available = None if memory is None else parse_memory(memory)
    model = default_weights(model)
    name, shape = model_shape(model)
    size = size_of(model, choice, storage_dtype_choice(storage_dtype))
    run = default_run(model, size, storage_dtype, new_tokens)
    shapes, assignment, options = size.modules, size.group_of_module, size.template.model_dump()
    training = memory_of(run, available)
    plan: dict[str, Any] = {
        "model": name,
        "source": ALIASES[name].source if name in ALIASES else "folder",
        "family": shape.family,
        "model_parameters": shape.parameters,
        "weights_dtype": parse_model(model).dtype,
        "adapter": size.kind,
        "trained_parameters": size.trained_parameters,
        **{name: _listed(options.get(name)) for name in _OPTIONS},
        "adapted_modules": len(shapes) or None,
        "group_sizes": [] if assignment is None else list(group_sizes(assignment)),
        "training_memory": training,
        "update_bytes": {d: payload_bytes(size.trained_parameters, d) for d in FIXED_SIZE_DTYPES},
    }
    if parse_choice(rollouts) == "vllm":
        plan["shared_memory"] = _shared_memory(run)
    if list_modules:
        plan["modules"] = [
            {"name": m.name, "d": m.d, "k": m.k, "group": assignment[i] if assignment is not None else None}
            for i, m in enumerate(shapes)
        ]
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    shown = {**plan, "training_memory": memory_text(training)}
    rows = [(key.replace("_", " "), _text(value)) for key, value in shown.items() if key != "modules"]
    console = Console()
    console.print(rows_table(("", ""), [r for r in rows if r[1]]))
    if available is not None:
        print(fit_text(plan["training_memory"]))
    if list_modules:
        listed = [
            (m.name, f"{m.d}×{m.k}", "" if assignment is None else str(assignment[i])) for i, m in enumerate(shapes)
        ]
        console.print(rows_table(("module", "shape", "group"), listed))


def _shared_memory(run: RunSpec) -> dict[str, int | bool]:
    """Bytes of one device for the trainer, one sequence at a time, and a vLLM engine with 64 sequences in its cache.

    Raises:
        SpecError: vLLM cannot hold this base as the trainer does, or cannot follow the update.
    """
    _, shape = model_shape(run.model)
    rollout_spec("vllm", run.model, shape, "cuda", run.adapter)
    rank = getattr(run.adapter, "rank", None)  # of what is swapped
    dtype, new_tokens = parse_model(run.model).dtype, longest_completion(run)
    return shared_plan(shape, run_memory(run), dtype=dtype, rank=rank, new_tokens=new_tokens).to_json()


def _listed(value: object) -> object:
    """Several values as one text."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        sized = {key: gigabytes(v) if v >= _LARGE else f"{v:,} B" for key, v in value.items() if type(v) is int}
        return "\n".join(f"{key.replace('_', ' ')} {text}" for key, text in sized.items())
    if isinstance(value, list):
        runs: list[list[int]] = []
        for size in value:
            if runs and runs[-1][0] == size:
                runs[-1][1] += 1
            else:
                runs.append([size, 1])
        return ", ".join(f"{size} × {count}" for size, count in runs)
    return str(value)
