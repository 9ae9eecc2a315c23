"""Holds the predictions of studies/abacus-causal.toml against its runs.

    python studies/tools/causal_verdicts.py STUDY

Prints, in Markdown: accuracy by style and size; the difference each prediction is about, paired by seed and item, with
its 95 % interval; and what a converged model pays for a demonstration, bit by bit of style.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from study_arms import Arm, arms_of, percent, points, table

from capacity.runs.study import Study
from capacity_analysis.statistics.intervals import Interval, accuracy_interval

MARGIN = 0.03  # "less than 3 points" in the predictions


def demonstration_bits(arm: Arm) -> float:
    """What the trained model pays for a held-out demonstration, bits, mean over seeds."""
    return float(np.mean([r.result.heldout_code_length_bits / r.result.heldout_demonstrations for r in arm.runs]))


def lower(interval: Interval) -> str:
    """Whether a difference is below zero."""
    return "lower" if interval.high < 0 else "higher" if interval.low > 0 else "undecided"


def within(interval: Interval) -> str:
    """Whether a difference is smaller than the margin."""
    if interval.low > -MARGIN and interval.high < MARGIN:
        return "within"
    return "beyond" if interval.low > MARGIN or interval.high < -MARGIN else "undecided"


def main() -> None:
    """Reads the study named on the command line."""
    trained = [arm for arm in arms_of(Study(Path(sys.argv[1])).runs()) if arm.parameters]
    arms = {(arm.method, arm.style, arm.parameters): arm for arm in trained}
    sizes = sorted({size for _, _, size in arms})
    bits = sorted({style[0] for _, style, _ in arms if style})
    shifts = sorted({style[1] for _, style, _ in arms if style})

    def sft(b: float, s: float, size: int) -> Arm:
        return arms["sft", (b, s), size]

    print("Accuracy, % (95 % for fresh seeds and items)\n")
    rows = [
        ("sft", f"{b:g}", f"{s:g}", *(percent(accuracy_interval(sft(b, s, z).outcomes)) for z in sizes))
        for b in bits
        for s in shifts
    ]
    rows += [
        (m, "", "", *(percent(accuracy_interval(arms[m, None, z].outcomes)) for z in sizes)) for m in ("rft", "grpo")
    ]
    print(table(("method", "style_bits", "style_shift", *(f"{z:,}" for z in sizes)), rows))

    print(f"Shift, sft at {shifts[-1]:g} − sft at {shifts[0]:g} bits of shift, points\n")
    found = [[sft(b, shifts[-1], z).over(sft(b, shifts[0], z)) for z in sizes] for b in bits]
    print(_differences(sizes, [(f"style_bits {b:g}", row) for b, row in zip(bits, found, strict=True)], lower))

    print(f"Entropy, sft with {bits[-1]:g} − sft with {bits[0]:g} style bits, points\n")
    found = [[sft(bits[-1], s, z).over(sft(bits[0], s, z)) for z in sizes] for s in shifts]
    print(_differences(sizes, [(f"style_shift {s:g}", row) for s, row in zip(shifts, found, strict=True)], within))

    print("Without shift, sft − rft, points\n")
    found = [[sft(b, 0.0, z).over(arms["rft", None, z]) for z in sizes] for b in bits]
    print(_differences(sizes, [(f"style_bits {b:g}", row) for b, row in zip(bits, found, strict=True)], within))

    print("All weights trained, difference from grpo, points\n")
    full = sizes[-1]
    others = [(f"sft {b:g} bits, shift {s:g}", sft(b, s, full)) for b in bits for s in shifts]
    others.append(("rft", arms["rft", None, full]))
    rows = []
    for name, arm in others:
        found_one = arm.over(arms["grpo", None, full])
        rows.append((name, points(found_one), within(found_one)))
    print(table(("arm", "difference", "3 points"), rows))

    print("What a model trained in full pays for a held-out demonstration, bits\n")
    rows = []
    for s in shifts:
        paid = [demonstration_bits(sft(b, s, full)) for b in bits]
        slope = float(np.polyfit(bits, paid, 1)[0])
        rows.append((f"{s:g}", *(f"{p:.2f}" for p in paid), f"{slope:.3f}"))
    print(table(("style_shift", *(f"{b:g} style bits" for b in bits), "slope"), rows))


def _differences(sizes: list[int], rows: list[tuple[str, list[Interval]]], verdict: Callable[[Interval], str]) -> str:
    cells = [(name, *(f"{points(i)} {verdict(i)}" for i in found)) for name, found in rows]
    return table(("", *(f"{z:,}" for z in sizes)), cells)


if __name__ == "__main__":
    main()
