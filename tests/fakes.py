"""Specs, fingerprints and runs made up for tests; nothing here trains."""

from pathlib import Path
from typing import Any

from hypothesis import settings

from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Run, Study
from capacity.spec.methods import METHODS
from capacity.spec.result import Outcome, Result, Step
from capacity.spec.run import RunSpec

# The cores may be busy with training, so no example has a deadline.
unhurried = settings(deadline=None)
FINGERPRINT = Fingerprint(sources="s", versions={"torch": "2.12.0"}, device="cpu", dtype="fp32")


def raw_spec(
    method: str = "sft", seed: int = 0, items: int = 4, temperature: float = 1.0, split: str = "test"
) -> dict[str, Any]:
    adapted, trained = method != "base", METHODS[method].trains
    tinylora = {"kind": "tinylora", "u": 1, "groups": 13, "projection_seed": seed}
    worked = {"demonstrations": "worked", "options": {"style_bits": 4.0, "style_shift": 4.0}}
    return {
        "schema_version": 3,
        "model": "abacus-0.9m",
        "task": {"name": "abacus", **(worked if METHODS[method].sees_demonstrations else {"demonstrations": "none"})},
        "method": method,
        "adapter": tinylora if adapted else {"kind": "none"},
        "storage_dtype": "bf16",
        "training": {
            "steps": 2,
            "prompts_per_step": 3,
            "samples_per_prompt": 4,
            "max_new_tokens": 24,
            "learning_rate": 0.01,
            "warmup_steps": 1,
        }
        if trained
        else None,
        "grpo": {} if "grpo" in METHODS[method].parts else None,
        "rft": {} if "rft" in METHODS[method].parts else None,
        "warm_start": {"learning_rate": 0.003} if method == "sft+grpo" else None,
        "evaluation": {
            "split": split,
            "items": items,
            "temperature": temperature,
            "max_new_tokens": 24,
        },
        "seed": seed,
    }


def spec(method: str = "sft", seed: int = 0, items: int = 4, temperature: float = 1.0, split: str = "test") -> RunSpec:
    return RunSpec.model_validate(raw_spec(method, seed, items, temperature, split))


def result(run_spec: RunSpec, correct: list[int], **changes: Any) -> Result:
    trained = run_spec.training is not None
    fields = {
        "model_parameters": 861952,
        "family": "abacus",
        "trained_parameters": 13 if trained else 0,
        "update_bytes": 26 if trained else 0,
        "header_bytes": 500 if trained else 0,
        "n_items": len(correct),
        "n_correct": sum(correct),
        "accuracy": sum(correct) / len(correct),
        "prompts": 6 if trained else 0,
        "sequences": 24 if trained else 0,
        "sampled_tokens": 250 + run_spec.seed if run_spec.method == "grpo" else 0,
        "trained_tokens": 240 + run_spec.seed if trained else 0,
        "flops": 1e9,
        "wall_seconds": 2.0 + run_spec.seed,
        "worker_peak_memory_bytes": 10**9,
    }
    return Result.model_validate(fields | changes)


def outcomes(correct: list[int], first_item: int = 0, split: str = "test") -> list[Outcome]:
    return [
        Outcome(item=f"{split}-{item}", correct=(c,), completions=(f"#{c}",))
        for item, c in enumerate(correct, start=first_item)
    ]


def add(
    study: Study,
    run_spec: RunSpec,
    correct: list[int],
    fingerprint: Fingerprint = FINGERPRINT,
    first_item: int = 0,
    **changes: Any,
) -> Run:
    """Adds a complete run whose answers are `correct`, and reads it back. `changes`: fields of its result."""
    metrics = [Step(step=step, loss=1.5) for step in range(2)] if run_spec.training else []
    update = b"theta" if run_spec.training else None
    rows = outcomes(correct, first_item, run_spec.evaluation.split)
    folder = study.add(run_spec, fingerprint, result(run_spec, correct, **changes), metrics, rows, update)
    return study.read(folder)


def study_in(folder: Path) -> Study:
    """An empty study."""
    study = Study(folder / "study")
    with study.locked():
        pass
    return study
