"""`capacity evaluate`: the accuracy of a model on a task, with whatever form of adapter on it."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import capacity
from capacity.errors import DataError, SpecError
from capacity.library.evaluate import Evaluated, EvaluatedAdapters, Measured
from capacity.plan.sampling import parse_choice
from capacity.runs import files
from capacity_analysis.statistics.intervals import Interval
from capacity_cli.progress import ModuleProgress
from capacity_reports.tables import rows_table


def evaluate_command(
    model: str | None,
    adapters: Sequence[Path],
    task: str,
    split: str,
    items: int | None,
    samples: int,
    temperature: float | None,
    seed: int,
    *,
    as_json: bool,
    rollouts: str = "transformers",
    control: bool = False,
    code_length: bool = False,
    out: Path | None = None,
) -> None:
    """Everything between the options and the printed result."""
    several = through_engine(rollouts, adapters, code_length=code_length)
    if out is not None and not out.parent.is_dir():
        raise DataError(f"--out {out}: no folder {out.parent}")
    found: Evaluated | EvaluatedAdapters
    if several:
        found = capacity.evaluate_adapters(
            model, adapters, task=task, split=split, items=items, samples=samples, temperature=temperature, seed=seed,
            control=control,
        )  # fmt: skip
    else:
        found = capacity.evaluate(
            model, adapters[0] if adapters else None, task=task, split=split, items=items, samples=samples,
            temperature=temperature, seed=seed, control=control, code_length=code_length, progress=ModuleProgress,
        )  # fmt: skip
    text = json.dumps(found.to_json(), indent=1)
    if out is not None:
        files.write_atomically(out, text + "\n")
    if as_json:
        print(text)
    elif isinstance(found, Evaluated):
        print("\n".join(found.lines))
    else:
        rows = [(name, *_cells(measured, gain)) for name, measured, gain in found.rows]
        Console().print(rows_table(("adapter", "accuracy %", "95 %", "gain"), rows), soft_wrap=True, highlight=False)
        print(found.line)


def through_engine(rollouts: str, adapters: Sequence[Path], *, code_length: bool = False) -> bool:
    """Whether an evaluation goes through vLLM.

    Raises:
        SpecError: several adapters, but not through vLLM; code lengths through it.
    """
    choice = parse_choice(rollouts)
    if choice == "vllm" and code_length:
        raise SpecError("--code-length is measured by transformers: leave --rollouts vllm out")
    if choice != "vllm" and len(adapters) > 1:
        raise SpecError("several adapters at once need --rollouts vllm")
    return choice == "vllm"


def _cells(measured: Measured, gain: Interval | None) -> tuple[str, str, str]:
    found = measured.accuracy
    interval, accuracy = f"{100 * found.low:.1f}–{100 * found.high:.1f}", f"{100 * found.estimate:.1f}"
    if gain is None:
        return accuracy, interval, ""
    low, high = 100 * gain.low, 100 * gain.high
    return accuracy, interval, f"{100 * gain.estimate:+.1f} ({low:+.1f} to {high:+.1f})"
