"""The result of `capacity compare`: arms of one size side by side, and the one sentence that they allow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.errors import DataError
from capacity.runs.study import Run
from capacity.spec.methods import PAIRS, TRAINED, Method
from capacity.spec.run import RunSpec
from capacity_analysis.statistics.intervals import Interval, accuracy_interval, difference_interval

# What is compared with what, as first − second, where both ran.
_INTERVALS = ("accuracy", "gain", "gain_over_best_temperature")


@dataclass(frozen=True)
class Arm:
    """One method at one size over all its seeds. `wall_seconds` is the mean of its runs."""

    method: Method
    adapter: str
    trained_parameters: int
    update_bytes: int
    header_bytes: int
    storage_dtype: str
    learning_rate: float
    accuracy: Interval
    gain: Interval
    gain_over_best_temperature: Interval | None
    accuracy_by_seed: tuple[float, ...]
    prompts: float
    sequences: float
    sampled_tokens: float
    trained_tokens: float
    flops: float
    wall_seconds: float


@dataclass(frozen=True)
class Difference:
    """accuracy(first) − accuracy(second) over the seeds that both have."""

    first: Method
    second: Method
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """Everything that `capacity compare` reports. `base_by_temperature`: the untrained model on test, by temperature.

    `best_temperature`: the one at which the untrained model is best on validation, None without those runs.
    `incomplete`: how many planned runs of a method gave no result; what is reported is about the others.
    """

    model: str
    task: str
    base: Interval
    base_by_temperature: dict[float, Interval]
    best_temperature: float | None
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    incomplete: dict[str, int]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "model": self.model,
            "task": self.task,
            "base": _interval_json(self.base),
            "base_by_temperature": {f"{t:g}": _interval_json(i) for t, i in self.base_by_temperature.items()},
            "best_temperature": self.best_temperature,
            "results": [
                {
                    **{k: v for k, v in asdict(arm).items() if k not in _INTERVALS},
                    "total_bytes": arm.update_bytes + arm.header_bytes,
                    "accuracy": arm.accuracy.estimate,
                    "low": arm.accuracy.low,
                    "high": arm.accuracy.high,
                    "gain": arm.gain.estimate,
                    "gain_low": arm.gain.low,
                    "gain_high": arm.gain.high,
                    "gain_over_best_temperature": _optional_json(arm.gain_over_best_temperature),
                    "seeds": arm.accuracy.seeds,
                    "n_items": arm.accuracy.items,
                }
                for arm in self.arms
            ],
            "differences": [{**asdict(d.interval), "first": d.first, "second": d.second} for d in self.differences],
            "incomplete": self.incomplete,
            "verdict": self.verdict,
        }


def _optional_json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {k: getattr(interval, k) for k in ("estimate", "low", "high")}


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {
        "accuracy": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n_items": interval.items,
        "seeds": interval.seeds,
    }


def outcome_matrix(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Seeds × items: each run's share of right samples on each item.

    Raises:
        DataError: the runs answered different items.
    """
    for run in runs[1:]:
        if run.answers.items != runs[0].answers.items:
            raise DataError(f"{run.folder}: answered other items than {runs[0].folder}")
    return np.array([run.answers.shares for run in runs])


def compare_runs(runs: Sequence[Run], specs: Sequence[RunSpec]) -> Comparison:
    """Compares the complete runs of one `capacity compare`.

    Args:
        runs: complete runs, those of `specs` among them; an arm all of whose seeds are missing is left out.
        specs: what was planned.

    Raises:
        DataError: the base run is missing.
    """
    by_identity = {run.spec.identity: run for run in runs}
    planned = [by_identity[s.identity] for s in specs if s.identity in by_identity]
    methods = tuple(m for m in TRAINED if any(s.method == m for s in specs))
    trained = {m: sorted((r for r in planned if r.spec.method == m), key=lambda r: r.spec.seed) for m in methods}
    protocol = next((s.evaluation for s in specs if s.method != "base"), None)
    bases = {
        split: {r.spec.evaluation.temperature: r for r in planned if _is_base(r, split)}
        for split in ("test", "validation")
    }
    base_run = next((r for r in bases["test"].values() if protocol is None or r.spec.evaluation == protocol), None)
    if base_run is None:
        raise DataError("the run of the untrained base is missing: run the comparison again")
    best = _best_temperature(bases["validation"]) if bases["validation"] else None
    best_run = bases["test"].get(best) if best is not None else None
    base = outcome_matrix([base_run])
    sharpened = outcome_matrix([base_run, best_run])[1:] if best_run else None
    matrices = {m: outcome_matrix([base_run, *rs])[1:] for m, rs in trained.items() if rs}
    planned_of = {m: sum(s.method == m for s in specs) for m in methods}
    incomplete = {str(m): planned_of[m] - len(trained[m]) for m in methods if planned_of[m] > len(trained[m])}
    arms = tuple(_arm(m, trained[m], matrices[m], base, sharpened) for m in methods if m in matrices)
    differences = []
    for first, second in PAIRS:
        if first in matrices and second in matrices:
            both = {r.spec.seed for r in trained[first]} & {r.spec.seed for r in trained[second]}
            one, two = (
                matrices[m][[i for i, r in enumerate(trained[m]) if r.spec.seed in both]] for m in (first, second)
            )
            if both:
                differences.append(Difference(first, second, difference_interval(one, two)))
    sees = next((s.task for s in specs if s.task.demonstrations != "none"), None)
    return Comparison(
        model=base_run.spec.model,
        task=sees.label if sees else base_run.spec.task.name,
        base=accuracy_interval(base),
        base_by_temperature={t: accuracy_interval(outcome_matrix([r])) for t, r in sorted(bases["test"].items())},
        best_temperature=best if best_run else None,
        arms=arms,
        differences=tuple(differences),
        incomplete=incomplete,
        verdict=verdict(arms, differences, incomplete, best if best_run else None),
    )


def _is_base(run: Run, split: str) -> bool:
    return run.spec.method == "base" and run.spec.evaluation.split == split


def _best_temperature(validation: Mapping[float, Run]) -> float:
    """The temperature with the highest accuracy on validation, the highest of equals."""
    return max(validation, key=lambda t: (validation[t].result.accuracy, t))


def _arm(
    method: Method,
    runs: Sequence[Run],
    matrix: NDArray[np.float64],
    base: NDArray[np.float64],
    sharpened: NDArray[np.float64] | None,
) -> Arm:
    first = runs[0]
    assert first.spec.training is not None

    def average(name: str) -> float:
        return float(np.mean([getattr(r.result, name) or 0 for r in runs]))

    return Arm(
        method=method,
        adapter=first.spec.adapter.kind,
        trained_parameters=first.result.trained_parameters,
        # Entropy-coded updates differ in size from seed to seed: the largest is what has to fit.
        update_bytes=max(r.result.update_bytes for r in runs),
        header_bytes=max(r.result.header_bytes for r in runs),
        storage_dtype=first.spec.storage_dtype,
        learning_rate=first.spec.training.learning_rate,
        accuracy=accuracy_interval(matrix),
        gain=difference_interval(matrix, base),
        gain_over_best_temperature=None if sharpened is None else difference_interval(matrix, sharpened),
        accuracy_by_seed=tuple(float(a) for a in matrix.mean(1)),
        prompts=average("prompts"),
        sequences=average("sequences"),
        sampled_tokens=average("sampled_tokens"),
        trained_tokens=average("trained_tokens"),
        flops=average("flops"),
        wall_seconds=average("wall_seconds"),
    )


def _points(interval: Interval) -> str:
    """ "12.3 points (95 % interval 10.1 to 14.5)"."""
    e, low, high = (100 * x for x in (interval.estimate, interval.low, interval.high))
    return f"{e:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def verdict(
    arms: Sequence[Arm],
    differences: Sequence[Difference] = (),
    incomplete: Mapping[str, int] | None = None,
    best_temperature: float | None = None,
) -> str:
    """One sentence that claims no more than the intervals allow: a side is taken only if an interval excludes 0."""
    if not arms:
        return "No trained run is complete, so nothing can be said."
    size = f"{arms[0].trained_parameters:,} trained parameter{'s' if arms[0].trained_parameters != 1 else ''}"
    parts = []
    for d in differences:
        if d.interval.low > 0:
            parts.append(f"{d.first} scores higher than {d.second}, {_points(d.interval)}")
        elif d.interval.high < 0:
            parts.append(f"{d.second} scores higher than {d.first}, {d.first} − {d.second} {_points(d.interval)}")
        else:
            parts.append(f"{d.first} and {d.second} cannot be told apart, {d.first} − {d.second} {_points(d.interval)}")
    for arm in arms:
        parts.append(f"{arm.method} {_gain(arm, best_temperature)}")
    seeds = min([arm.accuracy.seeds for arm in arms] + [d.interval.seeds for d in differences])
    scope = f"{seeds} seeds" if seeds > 1 else "one seed, so the spread between seeds is unknown"
    missing = "".join(
        f"; {count} {method} run{'s' if count > 1 else ''} gave no result and {'are' if count > 1 else 'is'} left out"
        for method, count in (incomplete or {}).items()
    )
    return f"With {size}: {'; '.join(parts)} ({scope}, {arms[0].accuracy.items:,} items{missing})."


def _gain(arm: Arm, best_temperature: float | None) -> str:
    """What an arm gained over the base, and whether sharpening alone would have given as much."""
    if arm.gain.low > 0:
        word = "gains over the base"
    elif arm.gain.high < 0:
        word = "falls below the base"
    else:
        word = "does not clearly differ from the base"
    text = f"{word}, {_points(arm.gain)}"
    over = arm.gain_over_best_temperature
    if arm.gain.low > 0 and over is not None and over.low <= 0:
        text += f", but not clearly over the base at its best temperature {best_temperature:g}, {_points(over)}"
    return text
