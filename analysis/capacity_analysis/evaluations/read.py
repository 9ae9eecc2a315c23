"""Any source of graded answers: a file by its format, or a folder of them. Nothing is guessed from a name."""

import json
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity_analysis.evaluations import inspect_logs, lm_eval, peft_benchmark
from capacity_analysis.evaluations.evaluation import Evaluation, Reading, arm_name
from capacity_analysis.evaluations.json_lines import lines
from capacity_analysis.evaluations.table import read_table

_ENDINGS = (".jsonl", ".json", ".eval", ".csv", ".parquet")


def read_evaluations(path: Path, arm: str | None, reading: Reading) -> list[Evaluation]:
    """The evaluations of a source.

    Args:
        path: a file, or a folder whose samples files and logs are tasks of one arm.
        arm: its name; None: that of the file or folder, unless a table names its arms.
        reading: what a person says of it.

    Raises:
        SpecError: something has to be chosen.
        DataError: no graded answers, or the source is not whole.
    """
    if path.is_dir():
        return _folder(path, arm or arm_name(path), reading)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix == ".eval":
        return [inspect_logs.read_eval(path, arm or arm_name(path), reading)]
    if path.suffix == ".json":
        return [_json(path, arm or arm_name(path), reading)]
    if path.suffix == ".jsonl" and (first := next(iter(lines(path)), None)) and lm_eval.is_samples(first[1]):
        return [lm_eval.read_samples(path, arm or arm_name(path), reading)]
    if path.suffix in (".jsonl", ".csv", ".parquet"):
        return read_table(path, arm, reading)
    raise DataError(f"{path}: not a source of answers: its name ends in none of {', '.join(_ENDINGS)}")


def holds_answers(path: Path) -> bool:
    """Whether a path is such a source by its kind, and not a baseline or a study of this program."""
    if path.is_dir():
        return any(path.rglob("samples_*.jsonl")) or any(path.rglob("*.eval"))
    if path.suffix == ".json" and path.is_file():
        try:
            return inspect_logs.is_log(read_object(path))
        except DataError:
            return False
    return path.suffix in _ENDINGS and path.suffix != ".json"


def _folder(path: Path, arm: str, reading: Reading) -> list[Evaluation]:
    files = sorted([*path.rglob("samples_*.jsonl"), *path.rglob("*.eval")])
    if not files:
        raise DataError(f"{path}: no samples_*.jsonl and no .eval in this folder")
    found: dict[str, Evaluation] = {}
    for file in files:
        (evaluation,) = read_evaluations(file, arm, reading)
        if evaluation.task in found:
            raise DataError(f"{path}: {file.name} is a second evaluation of {evaluation.task}: name one file")
        found[evaluation.task] = evaluation
    return list(found.values())


def _json(path: Path, arm: str, reading: Reading) -> Evaluation:
    whole = read_object(path)
    if inspect_logs.is_log(whole):
        return inspect_logs.read_json(path, whole, arm, reading)
    if lm_eval.is_results(whole):
        raise DataError(
            f"{path}: has means and no answers: give samples_*.jsonl, which lm_eval --log_samples writes; "
            "capacity import reads the means"
        )
    if peft_benchmark.is_result(whole):
        raise DataError(f"{path}: has means and no answers, so nothing can be paired: capacity import reads it")
    if "log_history" in whole:
        raise DataError(
            f"{path}: a trainer's state has means and no answers, so nothing can be paired: capacity import reads its "
            "eval_… grades"
        )
    raise DataError(f"{path}: not a log of inspect_ai, and no other JSON that holds answers")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        DataError: it is not one.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not whole JSON, as if cut off or edited") from None
    if not isinstance(whole, dict):
        raise DataError(f"{path}: not a JSON object")
    return whole
