"""Files that hold mean grades without answers, as rows of a points table. Nothing of them can be paired.

Three programs write such files: PEFT's `method_comparison`, lm-evaluation-harness (results_DATE.json), and the trainers
of transformers and TRL (trainer_state.json).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError, SpecError
from capacity_analysis.evaluations import lm_eval, peft_benchmark
from capacity_analysis.evaluations.evaluation import Reading, chosen

_EVALUATED = "eval_"  # begins the names of what a trainer measures on held-out rows
_NO_GRADES = ("loss", "runtime", "samples_per_second", "steps_per_second", "num_tokens", "entropy")


def has_means(whole: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of such a file."""
    return peft_benchmark.is_result(whole) or lm_eval.is_results(whole) or "log_history" in whole


def mean_rows(path: Path, whole: Mapping[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """The runs of such a file; what it does not say is left out.

    Args:
        path: where it was read.
        whole: its JSON object.
        reading: which of several grades.

    Raises:
        SpecError: several grades, and none is chosen.
        DataError: the file is not whole, or has no grade.
    """
    if peft_benchmark.is_result(whole):
        return [peft_benchmark.point(path, whole)]
    try:
        return _tasks(path, whole, reading) if lm_eval.is_results(whole) else [_last(path, whole, reading)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not whole: {type(error).__name__} {error}") from None


def _tasks(path: Path, whole: Mapping[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """A row for each task of lm-evaluation-harness, with counts where the mean is a share of its items."""
    rows = []
    for task, grades in whole["results"].items():
        found = {name: value for name, value in grades.items() if "," in name and "_stderr," not in name}
        filters = {name.partition(",")[2] for name in found}
        named = {name if len(filters) > 1 else name.partition(",")[0]: value for name, value in found.items()}
        accuracy = float(named[chosen(reading.metric, named, path)])
        row = {"model": whole.get("model_name"), "task": task, "split": "test", "accuracy": accuracy}
        items = whole.get("n-samples", {}).get(task, {}).get("effective")
        if items is not None and math.isclose(accuracy * items, round(accuracy * items), abs_tol=1e-6):
            row |= {"n_items": items, "n_correct": round(accuracy * items)}
        rows.append(row)
    return rows


def _last(path: Path, whole: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """The last evaluation of a trainer. Losses and rewards of training are not taken for test accuracy."""
    grades: dict[str, float] = {}
    for entry in whole["log_history"]:
        for name, value in entry.items():
            if name.startswith(_EVALUATED) and not name.endswith(_NO_GRADES) and isinstance(value, int | float):
                grades[name] = float(value)
    if not grades:
        raise DataError(
            f"{path}: a trainer's state has losses and rewards of training, and no grade of test items (eval_…): "
            "evaluate the trained model"
        )
    if reading.metric is None:  # a share of right tokens has such a name too
        raise SpecError(f"{path}: name the accuracy on test items with --metric: {', '.join(sorted(grades))}")
    return {"accuracy": grades[chosen(reading.metric, grades, path)]}
