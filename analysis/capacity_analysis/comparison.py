"""The result of `capacity compare`: arms of one size side by side, and the one sentence that they allow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.config import Method, RunSpec
from capacity.errors import DataError
from capacity.runs.study import Run
from capacity_analysis.intervals import Interval, accuracy_interval, difference_interval


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
    accuracy_by_seed: tuple[float, ...]
    prompts: int
    sequences: int
    trained_tokens: float
    flops: float
    wall_seconds: float


@dataclass(frozen=True)
class Comparison:
    """Everything that `capacity compare` reports. `base_by_temperature`: the untrained model, by temperature.

    `incomplete`: how many planned runs of a method gave no result; what is reported is about the others.
    """

    model: str
    task: str
    base: Interval
    base_by_temperature: dict[float, Interval]
    arms: tuple[Arm, ...]
    difference: Interval | None
    incomplete: dict[str, int]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "model": self.model,
            "task": self.task,
            "base": _interval_json(self.base),
            "base_by_temperature": {f"{t:g}": _interval_json(i) for t, i in self.base_by_temperature.items()},
            "results": [
                {
                    **{k: v for k, v in asdict(arm).items() if k not in ("accuracy", "gain")},
                    "total_bytes": arm.update_bytes + arm.header_bytes,
                    "accuracy": arm.accuracy.estimate,
                    "low": arm.accuracy.low,
                    "high": arm.accuracy.high,
                    "gain": arm.gain.estimate,
                    "gain_low": arm.gain.low,
                    "gain_high": arm.gain.high,
                    "seeds": arm.accuracy.seeds,
                    "n_items": arm.accuracy.items,
                }
                for arm in self.arms
            ],
            "difference": asdict(self.difference) if self.difference else None,
            "incomplete": self.incomplete,
            "verdict": self.verdict,
        }


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
    rows, names = [], None
    for run in runs:
        outcomes = run.outcomes()
        items = [row["item"] for row in outcomes]
        if names is not None and items != names:
            raise DataError(f"{run.folder}: answered other items than {runs[0].folder}")
        names = items
        rows.append([float(np.mean(row["correct"])) for row in outcomes])
    return np.array(rows)


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
    methods: tuple[Method, ...] = ("sft", "grpo")
    trained = {m: sorted((r for r in planned if r.spec.method == m), key=lambda r: r.spec.seed) for m in methods}
    protocol = next((s.evaluation for s in specs if s.method != "base"), None)
    bases = {r.spec.evaluation.temperature: r for r in planned if r.spec.method == "base"}
    base_run = next((r for r in bases.values() if protocol is None or r.spec.evaluation == protocol), None)
    if base_run is None:
        raise DataError("the run of the untrained base is missing: run the comparison again")
    base = outcome_matrix([base_run])
    matrices = {m: outcome_matrix([base_run, *rs])[1:] for m, rs in trained.items() if rs}
    incomplete = {m: sum(s.method == m for s in specs) - len(trained[m]) for m in methods}
    incomplete = {m: count for m, count in incomplete.items() if count}
    arms = tuple(_arm(m, trained[m], matrices[m], base) for m in methods if m in matrices)
    difference = None
    if set(matrices) == {"sft", "grpo"}:
        both = {r.spec.seed for r in trained["sft"]} & {r.spec.seed for r in trained["grpo"]}
        pick = {m: [i for i, r in enumerate(trained[m]) if r.spec.seed in both] for m in methods}
        if both:
            difference = difference_interval(matrices["grpo"][pick["grpo"]], matrices["sft"][pick["sft"]])
    spec = base_run.spec
    return Comparison(
        model=spec.model,
        task=f"{spec.task.name}?demonstrations={spec.task.demonstrations}",
        base=accuracy_interval(base),
        base_by_temperature={t: accuracy_interval(outcome_matrix([r])) for t, r in sorted(bases.items())},
        arms=arms,
        difference=difference,
        incomplete={str(m): count for m, count in incomplete.items()},
        verdict=verdict(arms, difference, incomplete),
    )


def _arm(method: Method, runs: Sequence[Run], matrix: NDArray[np.float64], base: NDArray[np.float64]) -> Arm:
    first = runs[0]
    assert first.spec.training is not None
    return Arm(
        method=method,
        adapter=first.spec.adapter.kind,
        trained_parameters=first.result["trained_parameters"],
        # Entropy-coded updates differ in size from seed to seed: the largest is what has to fit.
        update_bytes=max(r.result["update_bytes"] for r in runs),
        header_bytes=max(r.result["header_bytes"] for r in runs),
        storage_dtype=first.spec.storage_dtype,
        learning_rate=first.spec.training.learning_rate,
        accuracy=accuracy_interval(matrix),
        gain=difference_interval(matrix, base),
        accuracy_by_seed=tuple(float(a) for a in matrix.mean(1)),
        prompts=first.result["prompts"],
        sequences=first.result["sequences"],
        trained_tokens=float(np.mean([r.result["trained_tokens"] for r in runs])),
        flops=float(np.mean([r.result["flops"] for r in runs])),
        wall_seconds=float(np.mean([r.result["wall_seconds"] for r in runs])),
    )


def _points(interval: Interval) -> str:
    """ "12.3 points (95 % interval 10.1 to 14.5)"."""
    e, low, high = (100 * x for x in (interval.estimate, interval.low, interval.high))
    return f"{e:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def verdict(arms: Sequence[Arm], difference: Interval | None, incomplete: Mapping[Method, int] | None = None) -> str:
    """One sentence that claims no more than the intervals allow: a side is taken only if an interval excludes 0."""
    if not arms:
        return "No trained run is complete, so nothing can be said."
    size = f"{arms[0].trained_parameters:,} trained parameter{'s' if arms[0].trained_parameters != 1 else ''}"
    parts = []
    if difference is not None:
        if difference.low > 0:
            parts.append(f"grpo scores higher than sft, {_points(difference)}")
        elif difference.high < 0:
            parts.append(f"sft scores higher than grpo, grpo − sft {_points(difference)}")
        else:
            parts.append(f"grpo and sft cannot be told apart, grpo − sft {_points(difference)}")
    for arm in arms:
        if arm.gain.low > 0:
            word = "gains over the base"
        elif arm.gain.high < 0:
            word = "falls below the base"
        else:
            word = "does not clearly differ from the base"
        parts.append(f"{arm.method} {word}, {_points(arm.gain)}")
    seeds = min([arm.accuracy.seeds for arm in arms] + ([difference.seeds] if difference is not None else []))
    scope = f"{seeds} seeds" if seeds > 1 else "one seed, so the spread between seeds is unknown"
    missing = "".join(
        f"; {count} {method} run{'s' if count > 1 else ''} gave no result and {'are' if count > 1 else 'is'} left out"
        for method, count in (incomplete or {}).items()
    )
    return f"With {size}: {'; '.join(parts)} ({scope}, {arms[0].accuracy.items:,} items{missing})."
