"""What `compare --until decided` promises, by simulation: coverage after stopping, false decisions, seeds used.

    python proofs/sequential_calibration.py [--studies N]

Runs scatter as in contrast_calibration.py, with draws of each seed. Each study looks at 3, 4, … 10 seeds and stops when
the interval of grpo − sft excludes 0, or lies within the margin. Beside it stands a study of ten seeds that is looked
at once. "False" is a decision against the truth: another side than the true one, or "equal" outside of the margin.
"""

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np
from contrast_calibration import World, shift_for

from capacity.plan.looks import Looks
from capacity_analysis.compare.looks import Outcome, look_estimate, outcome_of
from capacity_analysis.statistics.crossed import Crossed
from capacity_analysis.statistics.error_spending import look_errors
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_analysis.types import Array

SEED = 20_271
MOST = 10
TRUTHS = ((0.0, None), (0.02, None), (0.05, None), (0.10, None), (0.20, None), (0.0, 0.05), (0.05, 0.05))
HEADINGS = (
    "seed × method, logits", "true difference, points", "margin, points", "covered after stopping, %", "decided, %",
    "false, %", "mean seeds", "ten seeds at once: decided, %",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How one study ended: what it says, after how many seeds, and whether its interval holds the truth."""

    outcome: Outcome
    seeds: int
    covered: bool


def stopped(answers: Array, true: float, looks: Looks) -> Ended:
    """One study, looked at until it is decided.

    Args:
        answers: of grpo and sft, 2 × seeds × items.
        true: the true difference.
        looks: when to look.
    """
    ended = None
    for seeds, error in zip(looks.seeds, look_errors(looks.seeds, 1 - looks.confidence), strict=True):
        apart = answers[0, :seeds] - answers[1, :seeds]
        estimate = look_estimate(float(apart.mean()), Crossed.of(apart), *apart.shape, 1 - error)
        assert estimate.low is not None and estimate.high is not None  # noqa: PT018
        outcome = outcome_of(estimate, looks.margin)
        ended = Ended(outcome, seeds, estimate.low <= true <= estimate.high)
        if outcome != "open":
            break
    assert ended is not None
    return ended


def false(outcome: Outcome, true: float, margin: float | None) -> bool:
    """Whether a decision contradicts the truth."""
    if outcome == "equal":
        return margin is None or abs(true) >= margin
    return outcome == "lower" or (outcome == "higher" and true <= 0)


def row(spread: float, true: float, margin: float | None, studies: int, rng: np.random.Generator) -> list[str]:
    """One line of the table."""
    world, looks = World(MOST, (spread, spread), "seed"), Looks(most=MOST, margin=margin)
    shift = shift_for(true, spread) if true else 0.0
    found, once = [], 0
    for _ in range(studies):
        answers = world.answers(rng, shift)
        found.append(stopped(answers, true, looks))
        once += outcome_of(difference_estimate(*answers), margin) != "open"
    shares = [
        np.mean([e.covered for e in found]),
        np.mean([e.outcome != "open" for e in found]),
        np.mean([false(e.outcome, true, margin) for e in found]),
    ]
    return [
        f"{spread:g}", f"{100 * true:g}", "" if margin is None else f"{100 * margin:g}",
        *(f"{100 * share:.1f}" for share in shares), f"{np.mean([e.seeds for e in found]):.1f}",
        f"{100 * once / studies:.1f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
    rng = np.random.default_rng(SEED)
    missed = []
    for spread in (0.0, 0.1, 0.3):
        for true, margin in TRUTHS:
            cells = row(spread, true, margin, studies, rng)
            print("| " + " | ".join(cells) + " |", flush=True)
            error = 300 * math.sqrt(0.05 * 0.95 / studies)
            if float(cells[3]) < 95 - error or float(cells[5]) > 5 + error:
                missed.append(f"spread {cells[0]}, difference {cells[1]}: covered {cells[3]} %, false {cells[5]} %")
    print(f"\n{studies} studies a row; Monte-Carlo standard error at 95 %: {100 * math.sqrt(0.0475 / studies):.2f}.")
    print(
        "\n".join(missed) or "All rows cover at least 95 % and have at most 5 % false decisions, within three errors."
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
