"""Accuracy against size of a finished study, in Markdown: `python studies/tools/size_tables.py STUDY`.

For each model: accuracy by method and size, the differences between methods paired by seed and item, the controls
against the base and against grpo, and what workers took. Intervals are 95 %, for fresh seeds and items.
"""

import sys
from pathlib import Path

import numpy as np
from study_arms import Arm, arms_of, percent, points, table

from capacity.runs.study import Study
from capacity_analysis.statistics.intervals import accuracy_interval

COMPARED = ("sft", "rft", "grpo")
CONTROLS = ("random-reward", "rft-online", "sft+grpo")
PAIRS = (("grpo", "sft"), ("grpo", "rft"), ("rft", "sft"))


def rate_text(arm: Arm) -> str:
    """The learning rate, which all seeds share."""
    (training,) = {r.spec.training.learning_rate for r in arm.runs if r.spec.training is not None}
    return f"{training:g}"


def main() -> None:
    """Reads the study named on the command line."""
    arms = arms_of(Study(Path(sys.argv[1])).runs())
    models = sorted({a.model for a in arms}, key=lambda m: max(a.parameters for a in arms if a.model == m))
    for model in models:
        own = {(a.method, a.parameters): a for a in arms if a.model == model}
        base = own["base", 0]
        sizes = sorted({size for method, size in own if method in COMPARED})
        print(f"## {model}\nbase {percent(accuracy_interval(base.outcomes))}\n")
        print("Accuracy, % (rate)\n")
        rows = [
            (f"{z:,}", *(f"{percent(accuracy_interval(own[m, z].outcomes))} @{rate_text(own[m, z])}" for m in COMPARED))
            for z in sizes
        ]
        print(table(("parameters", *COMPARED), rows))
        print("Differences, points, paired by seed and item\n")
        rows = [(f"{z:,}", *(points(own[a, z].over(own[b, z])) for a, b in PAIRS)) for z in sizes]
        print(table(("parameters", *(f"{a} − {b}" for a, b in PAIRS)), rows))
        controls = [arm for (method, _), arm in sorted(own.items()) if method in CONTROLS]
        if controls:
            print("Controls\n")
            rows = [
                (
                    f"{arm.method} {arm.parameters:,}",
                    percent(accuracy_interval(arm.outcomes)),
                    points(arm.over(base)),
                    points(arm.over(own["grpo", arm.parameters])),
                    points(arm.over(own["rft", arm.parameters])),
                )
                for arm in controls
            ]
            print(table(("arm", "accuracy, %", "gain, points", "− grpo", "− rft"), rows))
        print("Workers\n")
        rows = []
        for method in (*COMPARED, *CONTROLS):
            runs = [r for (m, _), arm in own.items() if m == method for r in arm.runs]
            if runs:
                seconds = float(np.median([r.result.wall_seconds for r in runs]))
                memory = max(r.result.worker_peak_memory_bytes for r in runs)
                rows.append((method, f"{len(runs)}", f"{seconds:.0f}", f"{memory / 2**20:,.0f}"))
        print(table(("method", "runs", "median seconds", "largest peak memory, MiB"), rows))


if __name__ == "__main__":
    main()
