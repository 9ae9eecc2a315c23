"""`capacity export`: a trained update as a PEFT LoRA folder or as merged weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capacity.errors import DataError, unknown
from capacity.plan.models import ALIASES, model_shape
from capacity.runs import files
from capacity.studies.device import check_libraries
from capacity_cli.progress import ModuleProgress

FORMS = ("peft", "merged")
DTYPES = ("fp32", "bf16", "fp16")
# Below this cosine the merged weights are another update than the one that was trained.
_FAITHFUL = 0.999


def export_command(update: Path, form: str, out: Path | None, dtype: str, model: str | None, *, as_json: bool) -> None:
    """Everything between the options and the printed result."""
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if not update.exists():
        raise DataError(f"{update}: no such file or folder")
    folder = out or Path(f"{update.resolve().stem}-{form}")
    if folder.exists():
        raise DataError(f"{folder} exists already: choose another --out, or remove it")
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from capacity.adapters.open import open_native

    with ModuleProgress("factors") as progress:
        opened = open_native(update, model, "cpu", on_module=progress.on_module)
    assert opened.adapted is not None
    assert opened.artifact is not None
    recipe = opened.artifact.recipe
    result: dict[str, Any] = {
        "form": form,
        "folder": str(folder),
        "dtype": dtype,
        "base": opened.base,
        "adapter": recipe.adapter.kind,
        "trained_parameters": recipe.parameters,
        "run": recipe.run,
    }
    with files.new_folder(folder) as partial:
        if form == "peft":
            from capacity.adapters.files.peft_folder import save_peft_lora

            result["rank"] = save_peft_lora(opened.adapted, partial, dtype, _hub_name(opened.base))
        else:
            from capacity.adapters.files.merge import merge

            merged, report = merge(opened.adapted, dtype)
            merged.save_pretrained(partial)  # type: ignore[operator]
            opened.tokenizer.save_pretrained(partial)
            result["merge"] = asdict(report)
        result["bytes"] = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(f"{folder}: {_words(result)}, {result['bytes']:,} bytes in {dtype}, of {opened.base}")
    if form == "merged":
        print(_merge_words(result["merge"], dtype))


def _hub_name(base: str) -> str:
    """What others know the base by: its hub id, or where it is.

    Models that come with a package keep their alias: what the hub has under their name may differ in its weights.
    """
    name, _ = model_shape(base)
    alias = ALIASES.get(name)
    if alias is None:
        return str(Path(name).resolve())
    return name if alias.source == "embedded" or name == "smollm2-135m" else alias.source


def _words(result: dict[str, Any]) -> str:
    if result["form"] == "peft":
        return f"a PEFT LoRA adapter of rank {result['rank']}"
    return "a transformers model with the update merged"


def _merge_words(report: dict[str, Any], dtype: str) -> str:
    line = (
        f"Merged in fp32 arithmetic: cosine of realised and intended ΔW {report['cosine']:.6f} "
        f"(worst module {report['worst_cosine']:.6f}, {report['worst_module']}); "
        f"{100 * report['moved']:.2f} % of the adapted weights moved."
    )
    if report["cosine"] < _FAITHFUL:
        line += (
            f"\nRounding to {dtype} has changed the update: merge with --dtype fp32, or serve it as a LoRA (--to peft)."
        )
    return line
