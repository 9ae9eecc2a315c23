"""`capacity export`: a trained update as a PEFT LoRA folder or as merged weights."""

import json
from pathlib import Path

import capacity
from capacity_cli.progress import ModuleProgress


def export_command(update: Path, form: str, out: Path | None, dtype: str, model: str | None, *, as_json: bool) -> None:
    """Everything between the options and the printed result."""
    done = capacity.export(update, form, out=out, dtype=dtype, model=model, progress=ModuleProgress)
    print(json.dumps(done.to_json(), indent=1) if as_json else "\n".join(done.lines))
