"""`capacity evaluate`: the accuracy of a model on a task, with whatever form of adapter on it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from capacity.config import EvaluationSpec
from capacity.errors import SpecError
from capacity.tasks.catalog import get_task, parse_task
from capacity.training.protocols import PROTOCOLS
from capacity_analysis.intervals import accuracy_interval
from capacity_cli.environment import check_libraries, device
from capacity_cli.progress import ModuleProgress


def evaluate_command(
    model: str | None,
    adapter: Path | None,
    task: str,
    split: str,
    items: int | None,
    samples: int,
    temperature: float | None,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    if model is None and adapter is None:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    if split not in ("test", "validation"):
        raise SpecError(f"--split {split!r}: choose test or validation")
    if temperature is not None and not math.isfinite(temperature):
        raise SpecError(f"--temperature {temperature}: give a finite number, 0 or above")
    if seed >= 2**63:
        raise SpecError(f"--seed {seed}: give a number below 2^63")
    name = parse_task(task).name
    problem = get_task(name)
    default = PROTOCOLS[name].evaluation(problem, validation=split == "validation", temperature=temperature)
    spec = EvaluationSpec(
        split=default.split,
        items=default.items if items is None else items,
        samples_per_item=samples,
        temperature=default.temperature,
        max_new_tokens=default.max_new_tokens,
        seed=seed,
    )
    check_libraries()
    from capacity.runs.points import protocol_name
    from capacity.training.quiet import quiet

    quiet()
    from capacity.training.evaluate import evaluate
    from capacity.training.opened import open_model

    with ModuleProgress("factors") as progress:
        opened = open_model(model, adapter, device(), on_module=progress.on_module)
    with ModuleProgress("items") as progress:
        evaluation = evaluate(opened.model, opened.tokenizer, problem, spec, on_items=progress.on_count)
    outcomes = np.array([[np.mean(row["correct"]) for row in evaluation.outcomes]])
    interval = accuracy_interval(outcomes)
    result: dict[str, Any] = {
        "model": opened.base,
        "adapter": str(adapter) if adapter is not None else None,
        "form": opened.form,
        "trained_parameters": opened.artifact.recipe.parameters if opened.artifact else None,
        "task": name,
        "split": spec.split,
        "protocol": protocol_name(spec),
        "n_items": evaluation.n_items,
        "samples_per_item": samples,
        "n_correct": evaluation.n_correct,
        "accuracy": evaluation.accuracy,
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "outcomes": evaluation.outcomes,
    }
    if as_json:
        print(json.dumps(result, indent=1))
        return
    what = {"base": "", "native": f" with {adapter}", "peft": f" with the PEFT adapter {adapter}"}[opened.form]
    print(
        f"{opened.base}{what} on {name}, {spec.split}: {100 * evaluation.accuracy:.1f} % "
        f"(95 % interval {100 * interval.low:.1f}–{100 * interval.high:.1f}) of {evaluation.n_items:,} items, "
        f"protocol {result['protocol']}"
    )
