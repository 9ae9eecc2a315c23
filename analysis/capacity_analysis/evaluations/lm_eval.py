"""Samples of lm-evaluation-harness: `lm_eval --log_samples` writes samples_TASK_DATE.jsonl and results_DATE.json.

A line is one item under one filter: `doc_id`, hashes of document, prompt and target, and a value of each metric. The
layout is that of version 0.4 (lm_eval/loggers/evaluation_tracker.py). Files are read line by line.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity_analysis.evaluations.evaluation import NOT_KNOWN, Answer, Collected, Evaluation, Reading, chosen, digest
from capacity_analysis.evaluations.json_lines import lines

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")


def is_samples(first: dict[str, Any]) -> bool:
    """Whether a line is of such a file."""
    return "doc_id" in first and ("resps" in first or "filtered_resps" in first)


def is_results(whole: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of a results file, which has means without answers."""
    return "results" in whole and "n-shot" in whole


def read_samples(path: Path, arm: str, reading: Reading) -> Evaluation:
    """The answers of a samples file.

    Args:
        path: the file.
        arm: its name.
        reading: which metric, and under which filter.

    Raises:
        SpecError: several metrics or filters, and none is chosen.
        DataError: the file is not whole, or an item is there twice.
    """
    metric = chosen(reading.metric, _offered(path), path)
    name, _, wanted = metric.partition(",")
    found = Collected(str(path))
    for number, row in lines(path):
        if wanted and row.get("filter") != wanted:
            continue
        where = f"line {number}"
        if not isinstance(row.get(name), int | float):
            raise DataError(f"{path}: {where}: {name} is not a number: it cannot be compared item by item")
        found.add(Answer(str(row.get("doc_id")), float(row[name]), _content(row)), where)
    named = _NAME.fullmatch(path.name)
    task = named["task"] if named else path.stem
    return found.evaluation(arm, task, metric, None, _model(path, named["date"] if named else ""))


def _offered(path: Path) -> list[str]:
    """The metrics of a file: "NAME", or "NAME,FILTER" where it has several filters."""
    metrics: dict[str, list[str]] = {}
    for _, row in lines(path):
        metrics.setdefault(str(row.get("filter")), [str(name) for name in row.get("metrics", [])])
    several = len(metrics) > 1
    return [f"{name},{kind}" if several else name for kind, names in metrics.items() for name in names]


def _content(row: dict[str, Any]) -> str | None:
    """The digest of prompt and target; of the document, where an older version has no hash of the prompt."""
    hashes = [str(row[key]) for key in ("prompt_hash", "target_hash") if row.get(key)]
    return digest(*hashes) if hashes else (digest(str(row["doc_hash"])) if row.get("doc_hash") else None)


def _model(path: Path, date: str) -> str:
    """The model that the results file beside it names."""
    beside = path.with_name(f"results_{date}.json")
    try:
        return str(json.loads(beside.read_text(encoding="utf-8"))["model_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return NOT_KNOWN
