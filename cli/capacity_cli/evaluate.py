"""`capacity evaluate`: the accuracy of a model on a task, with whatever form of adapter on it."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import DataError, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.runs import files
from capacity.spec.parts import EvaluationSpec, TaskSpec
from capacity.spec.result import Outcome
from capacity.studies.device import check_libraries, device
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.task import Task
from capacity_analysis.statistics.estimate import accuracy_estimate, difference_estimate
from capacity_cli.progress import ModuleProgress

if TYPE_CHECKING:
    from capacity.adapters.open import Opened
    from capacity.sampling.evaluate import Evaluation


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
    control: bool = False,
    code_length: bool = False,
    out: Path | None = None,
) -> None:
    """Everything between the options and the printed result."""
    if model is None and adapter is None:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    if control and adapter is None:
        raise SpecError("--control switches an adapter off: it needs --adapter")
    named, problem, spec = asked_of(task, split, items, samples, temperature, seed, out)
    if code_length and not problem.has_demonstrations:
        raise SpecError(f"--code-length: task {named.label} has no demonstrations")
    check_libraries()
    from capacity.runs.points import protocol_name
    from capacity.studies.quiet import quiet

    quiet()
    from capacity.adapters.open import open_model

    with ModuleProgress("factors") as progress:
        opened = open_model(model, adapter, device(), on_module=progress.on_module)
    measured = _measured(opened, problem, spec, control=control)
    result: dict[str, Any] = {
        "model": opened.base,
        "adapter": str(adapter) if adapter is not None else None,
        "form": opened.form,
        "trained_parameters": opened.artifact.recipe.parameters if opened.artifact else None,
        "task": named.name,
        "task_options": named.label,
        "split": spec.split,
        "protocol": protocol_name(spec),
        **measured,
        "demonstrations": _demonstrations(opened, problem, spec) if code_length else None,
    }
    text = json.dumps(result, indent=1)
    if out is not None:
        files.write_atomically(out, text + "\n")
    print(text if as_json else _sentence(result, adapter))


def asked_of(
    task: str, split: str, items: int | None, samples: int, temperature: float | None, seed: int, out: Path | None
) -> tuple[TaskSpec, Task, EvaluationSpec]:
    """The task and the protocol that the options name.

    Raises:
        SpecError: an option out of range.
        DataError: `out` has no folder.
    """
    if split not in ("test", "validation"):
        raise SpecError(f"--split {split!r}: choose test or validation")
    if temperature is not None and not math.isfinite(temperature):
        raise SpecError(f"--temperature {temperature}: give a finite number, 0 or above")
    if seed >= 2**63:
        raise SpecError(f"--seed {seed}: give a number below 2^63")
    if out is not None and not out.parent.is_dir():
        raise DataError(f"--out {out}: no folder {out.parent}")
    named = parse_task(task)
    problem = open_task(named)
    default = PROTOCOLS[named.name].evaluation(problem, validation=split == "validation", temperature=temperature)
    spec = EvaluationSpec(
        split=default.split,
        items=default.items if items is None else items,
        samples_per_item=samples,
        temperature=default.temperature,
        max_new_tokens=default.max_new_tokens,
        seed=seed,
    )
    return named, problem, spec


def _measured(opened: "Opened", problem: Task, spec: EvaluationSpec, *, control: bool) -> dict[str, Any]:
    """Evaluates, with KL to the base for an adapter, and on demand the same model with the adapter off."""
    from capacity.sampling.evaluate import evaluate
    from capacity.training.measure.divergence import KlMeter

    off = _switch(opened)
    meter = None if off is None else KlMeter(opened.model, off)
    with ModuleProgress("items") as progress:
        evaluation = evaluate(
            opened.model,
            opened.tokenizer,
            problem,
            spec,
            on_items=progress.on_count,
            on_rollout=None if meter is None else meter.add,
        )
    measured = counts(evaluation)
    measured["kl_to_base_bits"] = None if meter is None else meter.bits_per_token
    measured["control"] = None
    if control and off is not None:
        with ModuleProgress("items, adapter off") as progress, off():
            base = evaluate(opened.model, opened.tokenizer, problem, spec, on_items=progress.on_count)
        gain = difference_estimate(matrix(evaluation.outcomes, "correct"), matrix(base.outcomes, "correct"))
        measured["control"] = {**counts(base), "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    return measured


def _demonstrations(opened: "Opened", problem: Task, spec: EvaluationSpec) -> dict[str, Any]:
    """What one demonstration of each of the evaluated items costs to code."""
    from capacity.adapters.model import AdaptedModel
    from capacity.sampling.memory_slices import RowsAtOnce
    from capacity.spec.adapters import NoAdapter
    from capacity.training.measure.heldout import demonstration_length

    adapted = opened.adapted or AdaptedModel(opened.model.requires_grad_(False), NoAdapter(), opened.model)
    items = problem.items(spec.split, spec.items)
    found = demonstration_length(opened.model, opened.tokenizer, problem, items, RowsAtOnce(adapted, opened.base))
    return {"n": found.demonstrations, "tokens": found.tokens, "code_length_bits": found.bits}


def _switch(opened: "Opened") -> Callable[[], AbstractContextManager[object]] | None:
    """What gives a context without the adapter; None if there is none."""
    if opened.adapted is not None:
        return opened.adapted.switched_off
    if opened.form == "peft":
        disable: Callable[[], AbstractContextManager[object]] = opened.model.disable_adapter  # type: ignore[assignment]
        return disable
    return None


def matrix(outcomes: Sequence[Outcome], grade: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One row: the share of right samples of each item."""
    return np.array([[float(np.mean(getattr(outcome, grade))) for outcome in outcomes]])


def counts(evaluation: "Evaluation") -> dict[str, Any]:
    """What is reported of an evaluation, with its interval."""
    found = accuracy_estimate(matrix(evaluation.outcomes, "correct"))
    return {
        "n_items": evaluation.n_items,
        "samples_per_item": evaluation.samples_per_item,
        "n_correct": evaluation.n_correct,
        "accuracy": evaluation.accuracy,
        "low": found.low,
        "high": found.high,
        "interval": found.label,
        "strict": _grade(evaluation, "strict", evaluation.n_strict),
        "lenient": _grade(evaluation, "lenient", evaluation.n_lenient),
        "pass_at_k": evaluation.pass_at_k,
        "n_unfinished": evaluation.n_unfinished,
        "outcomes": [outcome.model_dump(mode="json") for outcome in evaluation.outcomes],
    }


def _grade(evaluation: "Evaluation", grade: str, right: int | None) -> dict[str, Any] | None:
    """Accuracy by one way of grading, with its interval; None for tasks that are graded in one way."""
    if right is None:
        return None
    found = accuracy_estimate(matrix(evaluation.outcomes, grade))
    return {"n_correct": right, "accuracy": found.value, "low": found.low, "high": found.high}


def _percent(values: dict[str, Any]) -> str:
    return f"{100 * values['accuracy']:.1f} % ({100 * values['low']:.1f}–{100 * values['high']:.1f})"


def _sentence(result: dict[str, Any], adapter: Path | None) -> str:
    what = {"base": "", "native": f" with {adapter}", "peft": f" with the PEFT adapter {adapter}"}[result["form"]]
    lines = [
        f"{result['model']}{what} on {result['task']}, {result['split']}: {_percent(result)} of {result['n_items']:,} "
        f"items, protocol {result['protocol']}"
    ]
    if result["strict"] is not None:
        lines.append(f"strict {_percent(result['strict'])}, lenient {_percent(result['lenient'])}")
    k = result["samples_per_item"]
    if k > 1:
        lines.append(f"at least one of {k} samples right: {100 * result['pass_at_k']:.1f} % of the items")
    if result["n_unfinished"]:
        lines.append(f"cut off before their end: {result['n_unfinished']:,} of {result['n_items'] * k:,} completions")
    if result["demonstrations"] is not None:
        coded = result["demonstrations"]
        n, tokens, bits = coded["n"], coded["tokens"], coded["code_length_bits"]
        lines.append(f"demonstrations: {bits:,.0f} bits for {n:,}, {bits / n:,.1f} each, {bits / tokens:.3f} a token")
    if result["kl_to_base_bits"] is not None:
        lines.append(f"KL to the base: {result['kl_to_base_bits']:.4g} bits a token")
    if result["control"] is not None:
        control = result["control"]
        low, high = 100 * control["gain_low"], 100 * control["gain_high"]
        lines.append(
            f"adapter off: {_percent(control)}; gain {100 * control['gain']:+.1f} points ({low:+.1f} to {high:+.1f})"
        )
    lines.append(f"Intervals: {result['interval']}.")
    return "\n".join(lines)
