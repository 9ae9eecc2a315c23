"""Tunes the learning rates that are shipped: per method and size class, on validation, with equal trials.

Every method tries the same rates at the same sizes with the same tuning seed, which no report uses. A grid whose
best rate is at its edge is extended for both methods. Continues where it stopped (`capacity-studies/tuning-…`).

    python benchmarks/tune_rates.py                        # all size classes
    python benchmarks/tune_rates.py 'lora-xs 1000-9999'    # these only; the other rows of rates.json stay
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capacity.adapters.budget import Budget
from capacity.config import Method, RunSpec, TaskSpec
from capacity.executors.local import run_all
from capacity.runs.files import write_atomically
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.training.pairs import Size, size_from_budget, size_from_choice, trained_spec
from capacity.training.rates import shipped, size_class
from capacity_cli.progress import RunProgress

MODEL = "abacus-0.9m"
TASK = TaskSpec(name="abacus", demonstrations="worked")
METHODS: tuple[Method, ...] = ("grpo", "sft")
SEED = 1000
# Budgets that are tried for each size class; a class's rate is the best of the mean over its budgets.
BUDGETS: dict[str, tuple[str, ...]] = {
    "1-9": ("4",),
    "10-99": ("13", "100"),
    "100-999": ("112",),
    "lora-xs 1000-9999": ("2000",),
    "lora 10000-99999": ("10240",),
    "full": ("full",),
}
# Rates are 10^(k/4); these are the first k tried. Full updates are the ceiling of every curve: they get a finer grid.
FIRST_GRID: dict[str, range] = {
    "1-9": range(-12, -5, 2),
    "10-99": range(-12, -5, 2),
    "100-999": range(-12, -5, 2),
    "lora-xs 1000-9999": range(-12, -5, 2),
    "lora 10000-99999": range(-14, -7, 2),
    "full": range(-16, -11),
}
LARGEST_GRID = 6
# Full updates can be unstable from seed to seed: the two best rates of each method are tried with more seeds.
FINALIST_SEEDS: dict[str, tuple[int, ...]] = {"full": (1001, 1002)}
ROOT = Path(__file__).parent.parent
RATES = ROOT / "capacity" / "training" / "rates.json"


def rate_of(k: int) -> float:
    """10^(k/4) to two digits: 0.01, 0.018, 0.032, 0.056, 0.1, …"""
    return float(f"{10 ** (k / 4):.2g}")


def size_of(budget: str) -> Size:
    if budget == "full":
        return size_from_choice(MODEL, "full")
    return size_from_budget(MODEL, Budget.parse(budget), "bf16", "tiled", 2)


def trial(method: Method, budget: str, k: int, seed: int = SEED) -> RunSpec:
    return trained_spec(MODEL, TASK, method, size_of(budget), seed, "bf16", rate=rate_of(k), validation=True)


def make(study: Study, specs: Sequence[RunSpec]) -> None:
    """Makes the runs that are missing; those that fail stay missing."""
    fingerprint = current("cpu", "fp32")
    missing = [s for s in specs if study.find(s, fingerprint)[0] != "complete"]
    if missing:
        with RunProgress(missing) as progress:
            run_all(study, missing, fingerprint, min(2, os.cpu_count() or 1), progress.on_event)


def accuracy(study: Study, spec: RunSpec) -> float:
    """Validation accuracy of a run; one that failed counts as 0."""
    folder = study.path_of(spec)
    return float(study.read(folder).result["accuracy"]) if folder.is_dir() else 0.0


def accuracies(study: Study, method: Method, budgets: Sequence[str], grid: range) -> list[float]:
    """Mean validation accuracy over the budgets, at each rate."""
    return [float(np.mean([accuracy(study, trial(method, b, k)) for b in budgets])) for k in grid]


def decide(study: Study, sizes: str, method: Method, grid: range, values: Sequence[float]) -> tuple[int, list[Any]]:
    """Index of the best rate, the smaller of equals, and the trials of the final that a class may have."""
    order = sorted(range(len(grid)), key=lambda i: values[i], reverse=True)
    if sizes not in FINALIST_SEEDS:
        return order[0], []
    seeds = (SEED, *FINALIST_SEEDS[sizes])
    specs = {i: [trial(method, b, grid[i], seed) for b in BUDGETS[sizes] for seed in seeds] for i in sorted(order[:2])}
    make(study, [s for each in specs.values() for s in each])
    means = {i: float(np.mean([accuracy(study, s) for s in each])) for i, each in specs.items()}
    final = [{"rate": rate_of(grid[i]), "accuracy": round(m, 4), "seeds": len(seeds)} for i, m in means.items()]
    return max(means, key=lambda i: means[i]), final


def extended(grid: range, best: Sequence[int]) -> range:
    """The grid with one more rate at each edge where some method's best rate lies."""
    first = grid[0] - grid.step if 0 in best else grid[0]
    last = grid[-1] + grid.step if len(grid) - 1 in best else grid[-1]
    return range(first, last + 1, grid.step)


def tune(study: Study, classes: Sequence[str]) -> list[dict[str, Any]]:
    grids = {c: FIRST_GRID[c] for c in classes}
    while True:
        make(study, [trial(m, b, k) for c in classes for b in BUDGETS[c] for k in grids[c] for m in METHODS])
        found = {(c, m): accuracies(study, m, BUDGETS[c], grids[c]) for c in classes for m in METHODS}
        best = {key: int(np.argmax(values)) for key, values in found.items()}
        wider = {c: extended(grids[c], [best[c, m] for m in METHODS]) for c in classes}
        wider = {c: g if len(g) <= LARGEST_GRID else grids[c] for c, g in wider.items()}
        if wider == grids:
            break
        grids = wider
    rows = []
    for (sizes, method), values in sorted(found.items()):
        budgets, grid = BUDGETS[sizes], grids[sizes]
        index, final = decide(study, sizes, method, grid, values)
        solutions = [size_of(b).solution for b in budgets]
        assert all(size_class(s.adapter, s.trained_parameters) == sizes for s in solutions)
        rows.append(
            {
                "model": MODEL,
                "task": TASK.name,
                "demonstrations": TASK.demonstrations,
                "method": method,
                "sizes": sizes,
                "learning_rate": rate_of(grid[index]),
                "at_edge": index in (0, len(grid) - 1),
                "tuned_at": [s.trained_parameters for s in solutions],
                "trials": [{"rate": rate_of(k), "accuracy": round(a, 4)} for k, a in zip(grid, values, strict=True)],
                "final": final,
            }
        )
    return rows


def main() -> None:
    classes = sys.argv[1:] or list(BUDGETS)
    if not set(classes) <= set(BUDGETS):
        sys.exit(f"size classes are {', '.join(BUDGETS)}")
    # A folder for each environment: rates are never chosen from runs of other sources.
    study = Study(ROOT / "capacity-studies" / f"tuning-{current('cpu', 'fp32').digest}")
    with study.locked():
        rows = tune(study, classes)
    kept = [row for row in shipped() if row["sizes"] not in classes]
    rows = sorted([*kept, *rows], key=lambda row: (row["sizes"], row["method"]))
    text = json.dumps({"command": "make tune", "split": "validation", "seed": SEED, "rates": rows}, indent=1)
    write_atomically(RATES, text + "\n")
    for row in rows:
        trials = "  ".join(f"{t['rate']:g}: {100 * t['accuracy']:.1f}" for t in row["trials"])
        edge = "  (at the edge)" if row["at_edge"] else ""
        print(f"{row['method']:5} {row['sizes']:8} → {row['learning_rate']:g}{edge}   {trials}")


if __name__ == "__main__":
    main()
