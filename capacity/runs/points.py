"""The points table: one row a run, what every analysis starts from."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from capacity.runs.answers import Answers
from capacity.runs.cell import cell_of
from capacity.runs.study import Run
from capacity.spec.frozen import canonical_json
from capacity.spec.parts import EvaluationSpec
from capacity.spec.result import Result
from capacity.spec.run import RunSpec

COLUMNS = (
    "study", "model", "model_parameters", "family", "task", "protocol", "method", "adapter",
    "trained_parameters", "storage_dtype", "update_bytes", "learning_rate", "seed", "split",
    "n_items", "n_correct", "accuracy", "samples_per_item", "demonstrations", "run", "cell", "recipe", "items",
    "answers",
)  # fmt: skip
# What a run used; written beside, for readers of a table whose run folders are gone.
COSTS = (
    "prompts", "sequences", "sampled_tokens", "trained_tokens", "flops", "wall_seconds", "worker_peak_memory_bytes",
)  # fmt: skip


def protocol_name(evaluation: EvaluationSpec) -> str:
    """The evaluation protocol as one word: "T1-k1-n24-s0" (temperature, samples, new tokens, seed)."""
    return f"T{evaluation.temperature:g}-k{evaluation.samples_per_item}-n{evaluation.max_new_tokens}-s{evaluation.seed}"


def points(study: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row a run, with the columns of `COLUMNS` and `COSTS`.

    `update_bytes` is the payload; `n_correct` counts correct samples among `n_items` × `samples_per_item`;
    `demonstrations` is "none" for methods that see none. `run` is the name of the run's folder, `cell` that of its
    cell, `recipe` the spec without seeds as canonical JSON. `items` is the digest of the names of the items, `answers`
    a bit for each answer (`capacity.runs.answers`). So a table says as much as the folder it was written from.
    """
    return [point(study, run.spec, run.result, run.answers) for run in runs]


def point(study: str, spec: RunSpec, result: Result, answers: Answers) -> dict[str, Any]:
    """One row: what `points` writes of a run with this spec, result and answers."""
    cell = cell_of(spec)
    return {
        "study": study,
        "model": spec.model,
        "model_parameters": result.model_parameters,
        "family": result.family,
        "task": spec.task.problems,
        "protocol": protocol_name(spec.evaluation),
        "method": spec.method,
        "adapter": spec.adapter.kind,
        "trained_parameters": result.trained_parameters,
        "storage_dtype": spec.storage_dtype,
        "update_bytes": result.update_bytes,
        "learning_rate": spec.training.learning_rate if spec.training else None,
        "seed": spec.seed,
        "split": spec.evaluation.split,
        "n_items": result.n_items,
        "n_correct": result.n_correct,
        "accuracy": result.accuracy,
        "samples_per_item": spec.evaluation.samples_per_item,
        "demonstrations": spec.task.style,
        "run": spec.short_id,
        "cell": cell.identity,
        "recipe": canonical_json(cell.recipe),
        "items": answers.items_digest,
        "answers": answers.packed(),
        **{name: getattr(result, name) for name in COSTS},
    }


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV text with a header; absent values are empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS + COSTS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
