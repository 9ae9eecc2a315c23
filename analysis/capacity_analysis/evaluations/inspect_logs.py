"""Logs of inspect_ai: `.eval` by its own reader, and `.json`, which `inspect log convert --to json` writes.

A `.eval` file is read sample by sample. Its layout belongs to inspect_ai, so that library must be installed
(`pip install "capacity[inspect]"`). The fields read here are those of `inspect_ai.log.EvalLog` (version 2).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity_analysis.evaluations.evaluation import NOT_KNOWN, Answer, Collected, Evaluation, Reading, chosen, digest

# What inspect_ai's own metrics make of these grades: correct, incorrect, partial, no answer.
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def is_log(whole: Mapping[str, Any]) -> bool:
    """Whether a JSON object is such a log."""
    return "eval" in whole and "status" in whole and "version" in whole


def read_json(path: Path, whole: Mapping[str, Any], arm: str, reading: Reading) -> Evaluation:
    """The answers of a log in JSON.

    Args:
        path: where it was read.
        whole: its JSON object.
        arm: its name.
        reading: which scorer.

    Raises:
        SpecError: several scorers, and none is chosen.
        DataError: the evaluation did not succeed, or grades that are no shares of 1.
    """
    return _read(path, whole, iter(whole.get("samples") or ()), arm, reading)


def read_eval(path: Path, arm: str, reading: Reading) -> Evaluation:
    """The answers of a `.eval` log.

    Args:
        path: the file.
        arm: its name.
        reading: which scorer.

    Raises:
        SpecError: several scorers, and none is chosen.
        DataError: inspect_ai is not installed or cannot read the file; or as `read_json`.
    """
    try:
        from inspect_ai.log import read_eval_log, read_eval_log_samples
    except ImportError:
        raise DataError(
            f"{path}: needs inspect_ai: pip install inspect_ai, or write it with inspect log convert --to json"
        ) from None
    try:
        header = read_eval_log(str(path), header_only=True).model_dump(mode="json")
        samples = (sample.model_dump(mode="json") for sample in read_eval_log_samples(str(path), False))
        return _read(path, header, samples, arm, reading)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: inspect_ai cannot read it: {' '.join(str(error).split())[:200]}") from None


def _read(
    path: Path, header: Mapping[str, Any], samples: Iterator[Mapping[str, Any]], arm: str, reading: Reading
) -> Evaluation:
    if header["status"] != "success":
        raise DataError(f"{path}: the evaluation ended with status {header['status']}: run it again")
    described = header["eval"]
    found, metric = Collected(str(path)), None
    for sample in samples:
        scores = sample.get("scores") or {}
        where = f"sample {sample['id']} epoch {sample['epoch']}"
        if metric is None:
            metric = chosen(reading.metric, scores, path)
        if metric not in scores:
            raise DataError(f"{path}: {where}: has no grade of {metric}: an error or a limit ended it")
        content = digest(json.dumps(sample["input"], sort_keys=True), json.dumps(sample["target"]))
        grade = _grade(scores[metric]["value"], f"{path}: {where}")
        found.add(Answer(str(sample["id"]), grade, content, None, str(sample["epoch"])), where)
    task, model = str(described.get("task", path.stem)), str(described.get("model") or NOT_KNOWN)
    return found.evaluation(arm, task, metric or "", None, model)


def _grade(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _GRADES:
        return _GRADES[value]
    if isinstance(value, bool | int | float):
        return float(value)
    raise DataError(f"{where}: the grade {str(value)[:40]!r} is neither C, I, P, N nor a number")
