"""The points table has one row per run. Every analysis starts from it."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from capacity.runs.answers import Answers
from capacity.runs.cell import cell_of
from capacity.runs.csv_cells import as_cell
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
    "prompts", "sequences", "sampled_tokens", "trained_tokens", "flops", "preparation_flops", "wall_seconds",
    "worker_peak_memory_bytes",
)  # fmt: skip


def protocol_name(evaluation: EvaluationSpec) -> str:
    """Returns the evaluation protocol as one word, such as "T1-k1-n24-s0" or "T1-k1-n24-s0-by-seed".

    The numbers are the temperature, the samples per item, the limit of new tokens and the seed. The ending "-by-seed"
    says that runs of each seed have draws of their own.
    """
    e = evaluation
    own = "-by-seed" if e.draws == "seed" else ""
    return f"T{e.temperature:g}-k{e.samples_per_item}-n{e.max_new_tokens}-s{e.seed}{own}"


def points(study: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one row per run, with the columns of `COLUMNS` and `COSTS`.

    A table of these rows says as much as the study folder that it was written from. These columns need explanation:
        update_bytes: the bytes of the payload of the update.
        n_correct: the number of correct samples among `n_items` × `samples_per_item`.
        demonstrations: the style of the demonstrations; "none" for methods that see none.
        run: the name of the run's folder.
        cell: the identity of the run's cell.
        recipe: the spec without seeds and the base, as canonical JSON.
        items: the digest of the names of the items.
        answers: one bit per answer, packed as in `capacity.runs.answers`.
    """
    return [point(study, run.short_id, run.spec, run.result, run.answers) for run in runs]


def point(study: str, run: str, spec: RunSpec, result: Result, answers: Answers) -> dict[str, Any]:
    """Returns the row of a run with this name, spec, result and answers. `points` explains the columns."""
    cell = cell_of(spec, result.base_fingerprint)
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
        "run": run,
        "cell": cell.identity,
        "recipe": canonical_json(cell.recipe),
        "items": answers.items_digest,
        "answers": answers.packed(),
        **{name: getattr(result, name) for name in COSTS},
    }


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as CSV text with a header. Absent values are empty. No text can be taken for a formula."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS + COSTS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()
