"""Runs stand in one table only if one environment made them, and those of a model only if they have one base."""

from collections.abc import Sequence
from pathlib import Path

from capacity.errors import DataError
from capacity.runs.study import Run


def refuse_mixed(runs: Sequence[Run], where: Path, *, allow_mixed: bool = False) -> None:
    """Checks that all runs were made in one environment, and those of each model on one base.

    Nothing is checked if `allow_mixed` is True. Runs on different bases then stand in different cells.

    Raises:
        DataError: if two runs differ in their environment or base. The message says what differs.
    """
    if allow_mixed:
        return
    difference = mixture(runs)
    if difference:
        raise DataError(f"{where}: {difference}: use --allow-mixed to mix them all the same")


def mixture(runs: Sequence[Run]) -> str:
    """Describes in words how runs differ in their environment, or of one model in their base; "" if not at all."""
    for run in runs[1:]:
        if run.fingerprint != runs[0].fingerprint:
            return f"runs of different environments ({runs[0].fingerprint.difference(run.fingerprint)})"
    for model, counts in bases(runs).items():
        if len(counts) > 1:
            listed = ", ".join(f"{count} on base {base[:16]}" for base, count in counts.items())
            return f"runs of {model} on different weights ({listed})"
    return ""


def bases(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Returns by model how many runs were made on each base. Runs that did not record their base do not count."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        base = run.result.base_fingerprint
        if base is not None:
            counts = found.setdefault(run.spec.model, {})
            counts[base] = counts.get(base, 0) + 1
    return found
