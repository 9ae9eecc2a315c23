"""`capacity evaluate --rollouts vllm`: one adapter or many, and the base beside them, in one pass of one engine."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from capacity.errors import SpecError
from capacity.plan.sampling import parse_choice
from capacity.runs import files
from capacity.studies.device import check_libraries, device
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_cli.evaluate import asked_of, counts, matrix
from capacity_reports.tables import rows_table

if TYPE_CHECKING:
    from capacity.sampling.evaluate import Evaluation


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


def evaluate_several_command(
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
    control: bool = False,
    out: Path | None = None,
) -> None:
    """Everything between the options and the printed result."""
    if model is None and not adapters:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    names = [str(path) for path in adapters]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"--adapter {twice} is given twice")
    named, problem, spec = asked_of(task, split, items, samples, temperature, seed, out)
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from capacity.runs.points import protocol_name
    from capacity.sampling.vllm.folders import peft_folders
    from capacity.sampling.vllm.several import AT_ONCE, BASE, evaluate_several
    from capacity.sampling.vllm.start import close_quietly, open_local

    with tempfile.TemporaryDirectory() as scratch:
        opened = peft_folders(model, adapters, Path(scratch), device())
        engine = open_local(
            opened.base,
            device(),
            opened.dtype,
            rank=opened.rank,
            adapters=min(len(adapters), AT_ONCE),
            new_tokens=spec.max_new_tokens,
        )
        try:
            base = control or not adapters
            found = evaluate_several(engine, opened.model, opened.tokenizer, problem, spec, opened.folders, base=base)
        finally:
            close_quietly(engine)
    result = {
        "model": opened.base,
        "engine": f"vllm {engine.version}",
        "task": named.name,
        "task_options": named.label,
        "split": spec.split,
        "protocol": protocol_name(spec),
        "adapters": [{"adapter": name, **_row(found, name)} for name in names],
        "base": counts(found[BASE]) if BASE in found else None,
    }
    text = json.dumps(result, indent=1)
    if out is not None:
        files.write_atomically(out, text + "\n")
    if as_json:
        print(text)
        return
    rows = [(name, *_cells(_row(found, name))) for name in [*names, *([BASE] if BASE in found else [])]]
    Console().print(rows_table(("adapter", "accuracy %", "95 %", "gain"), rows), soft_wrap=True, highlight=False)
    print(f"{opened.base} on {named.name}, {spec.split}: {spec.items:,} items, protocol {protocol_name(spec)}")
    print(f"Intervals: {next(counts(evaluation)['interval'] for evaluation in found.values())}.")


def _row(found: "dict[str, Evaluation]", name: str) -> dict[str, Any]:
    """Counts of one adapter, and its gain over the base where that was evaluated too."""
    row = counts(found[name])
    if "base" in found and name != "base":
        own, base = (matrix(found[n].outcomes, "correct") for n in (name, "base"))
        gain = difference_estimate(own, base)
        row |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    return row


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    interval = f"{100 * row['low']:.1f}–{100 * row['high']:.1f}"
    accuracy = f"{100 * row['accuracy']:.1f}"
    if "gain" not in row:
        return accuracy, interval, ""
    low, high = 100 * row["gain_low"], 100 * row["gain_high"]
    return accuracy, interval, f"{100 * row['gain']:+.1f} ({low:+.1f} to {high:+.1f})"
