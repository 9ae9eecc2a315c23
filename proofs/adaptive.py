"""Adaptive designs on the simulated truths of calibration_grid.toml, beside the full grid of each.

    python proofs/adaptive.py [--simulations N] [--case WORDS]

Cases are those whose runs draw their answers by themselves. The grid has the sizes and seeds of the case. The adaptive
design is asked for the width that the grid has in the median, the larger one of both arms. It chooses among eight sizes
a decade over the same range, in batches of four runs. Runs of both are counted with trials: five rates at each size for
a grid that is tuned, and for the adaptive design what it asks for (`tuned`).
"""

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from calibration import holds, intervals_of
from calibration_truths import ARMS, CLASSES, GRID, Case, class_probabilities, expected, shifted

from capacity_analysis.design.state import Ask, Batch, Goal, Measured, Setting, Stop
from capacity_analysis.design.steps import next_step
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.spread import spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, differences
from capacity_analysis.thresholds.estimators import believes_hill, estimate_curve, hill_ratio, monotone_ratio
from capacity_analysis.types import Array

PER_DECADE, RATES, BATCH, VALIDATION, MOST = 8, 5, 4, 512, 400
HEADINGS = (
    "case", "half-width asked, decades", "runs of the grid", "runs, adaptive", "share, %", "tuned: share, %",
    "reached, %", "sft covered, %", "grpo covered, %", "ratio covered, %", "claims of 10×, %",
)  # fmt: skip


@dataclass
class Runs:
    """The runs of one simulated study, made when they are asked for."""

    case: Case
    log_sizes: Array
    rng: np.random.Generator
    tables: dict[tuple[str, int], Array]
    shifts: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def accuracy(self, ask: Ask) -> float:
        """The accuracy of one run."""
        s, place = self.case.spec, self.log_sizes[ask.size]
        share = float(np.sqrt(s["shared"])), float(np.sqrt(1 - s["shared"]))
        who = (ask.seed, ask.validation)
        move = share[0] * self._normal("move", *who) + share[1] * self._normal("move", ask.method, *who)
        shift = share[0] * self._normal("size", ask.size, *who) + share[1] * self._normal(
            "size", ask.method, ask.size, *who
        )
        along = (place - self.log_sizes[0]) / (self.log_sizes[-1] - self.log_sizes[0])
        mean = float(expected(s[ask.method], np.array([place + s["jitter"] * move]), 0.0)[0])
        mean += s["seed_sd"] * (1 + (s["growth"] - 1) * along) * shift
        if self._uniform("fallen", ask.method, *who) < s["collapses"]:
            mean = s["base"] + s["kept"] * (mean - s["base"])
        return self._answered(ask, float(np.clip(mean, 1e-3, 1 - 1e-3)))

    def _answered(self, ask: Ask, mean: float) -> float:
        items = VALIDATION if ask.validation else self.case.spec["items"]
        if (ask.method, ask.size) not in self.tables:
            central = expected(self.case.spec[ask.method], self.log_sizes[[ask.size]], 0.0)
            self.tables[ask.method, ask.size] = class_probabilities(central, self.case.spec["concentration"])
        chances = np.clip(shifted(self.tables[ask.method, ask.size], np.array([mean]))[0], 0, 1)
        per_class = np.full(CLASSES, items // CLASSES)
        per_class[: items % CLASSES] += 1
        return float(self.rng.binomial(per_class, chances).sum() / items)

    def _normal(self, *key: Any) -> float:
        return self.shifts.setdefault(("normal", *key), float(self.rng.normal()))

    def _uniform(self, *key: Any) -> float:
        return self.shifts.setdefault(("uniform", *key), float(self.rng.random()))


def measured(case: Case, log_sizes: Array, results: Mapping[Ask, float | None], *, ratio: bool) -> Measured:
    """The intervals of both arms by the results on the test split, with the project's own estimators."""
    tables, sizes = {}, {}
    for arm in ARMS:
        own = {(a.size, a.seed): acc for a, acc in results.items() if a.method == arm and not a.validation}
        places, seeds = sorted({size for size, _ in own}), 1 + max(seed for _, seed in own)
        tables[arm] = np.array([[own.get((p, seed), np.nan) for seed in range(seeds)] for p in places], dtype=float)
        sizes[arm] = log_sizes[places]
    answers = float(case.spec["items"])
    spreads = {a: spread_of_seeds(tables[a][None], np.full(len(sizes[a]), answers)) for a in ARMS}
    q = 0.0 if case.absolute else case.spec["gain"]
    base = case.spec["base"]
    target = case.target if case.absolute else base + q * (float(spreads["grpo"].mean[0, -1]) - base)
    aim = Aim(np.array([target]), q, len(sizes["sft"]) + len(sizes["grpo"]) - 1)
    data = differences(
        [sizes[a] for a in ARMS], [spreads[a] for a in ARMS], [range(tables[a].shape[1]) for a in ARMS], aim
    )
    limits = limits_around(np.array([target]), None, None)
    found = {a: estimate_curve(data.take(i), limits) for i, a in enumerate(ARMS)}
    thresholds, believed = {}, {}
    for arm, estimates in found.items():
        believed[arm] = bool(believes_hill(estimates)[0])
        answer = estimates.hill if believed[arm] and estimates.hill is not None else estimates.monotone
        thresholds[arm] = (float(answer.low[0]), float(answer.high[0]))
    if not ratio:
        return Measured(thresholds, None, believed)
    both = bool(believes_hill(*found.values())[0])
    r = hill_ratio(data, limits, found["sft"], found["grpo"]) if both else monotone_ratio(found["sft"], found["grpo"])
    return Measured(thresholds, (float(r.low[0]), float(r.high[0])), believed)


def setting_of(case: Case, goal: Goal) -> Setting:
    """The setting of an adaptive design over the range of sizes of a case."""
    low, high = case.log_sizes[0], case.log_sizes[-1]
    steps = round(PER_DECADE * (high - low))
    sizes = np.unique(np.round(10 ** np.linspace(low, high, steps + 1)))
    target = case.target if case.absolute else None
    gain = 0.5 if case.absolute else case.spec["gain"]
    return Setting(np.log10(sizes), ARMS, 1, target, gain, "grpo", VALIDATION, goal, BATCH)


@dataclass(frozen=True)
class Study:
    """One simulated study: how it ended, its trained runs, and its intervals."""

    end: Stop
    runs: int
    found: Measured


def study_of(
    case: Case, goal: Goal, rng: np.random.Generator, tables: dict[tuple[str, int], Array]
) -> Study:  # fmt: skip
    """Goes through the steps of one adaptive study."""
    setting = setting_of(case, goal)
    runs = Runs(case, setting.log_sizes, rng, tables)
    results: dict[Ask, float | None] = {}
    base = float(rng.binomial(VALIDATION, case.spec["base"]) / VALIDATION)
    looks: list[Measured] = []
    while isinstance(step := next_step(setting, results, base, looks), Batch):
        results |= {ask: runs.accuracy(ask) for ask in step.runs}
        if not step.runs[0].validation:
            looks.append(measured(case, setting.log_sizes, results, ratio=goal.decide is not None))
    if not looks:
        raise ValueError(f"{case.name}: ended before any result: {step.why}")
    return Study(step, len(results), measured(case, setting.log_sizes, results, ratio=True))


def grid_half_width(case: Case, n: int, rng: np.random.Generator) -> float:
    """The median over studies of the larger half-width of both arms, by the full grid of a case."""
    widest = []
    for data in case.simulate(rng, n):
        found = intervals_of(data, case.target)
        halves = []
        for arm in ARMS:
            _, low, high = np.where(found[f"{arm} used"], found[f"{arm} hill"], found[f"{arm} monotone"])
            halves.append((high - low) / 2)
        widest.append(np.max(halves, axis=0))
    return float(np.median(np.concatenate(widest)))


def row(case: Case, simulations: int, rng: np.random.Generator) -> list[str]:
    """One line of the table."""
    half = grid_half_width(case, max(simulations, 200), rng)
    asked = half if np.isfinite(half) else 0.25
    tables: dict[tuple[str, int], Array] = {}
    found = [study_of(case, Goal(asked, None, MOST), rng, tables) for _ in range(simulations)]
    runs = float(np.mean([study.runs for study in found]))
    arms = len(ARMS)
    grid = arms * len(case.log_sizes) * case.spec["seeds"]
    tuning, trials = arms * len(case.log_sizes) * RATES, arms * (RATES + 2 - 1 + 2 * (3 - 1))
    covered = []
    for name in ARMS:
        ends = np.array([study.found.thresholds[name] for study in found])
        covered.append(float(np.mean(holds(ends[:, 0], ends[:, 1], case.truth[name]))))
    ends = np.array([study.found.ratio for study in found])
    covered.append(float(np.mean(holds(ends[:, 0], ends[:, 1], case.ratio))))
    return [
        case.name, f"{asked:.2f}" + ("" if np.isfinite(half) else " (grid open)"), f"{grid}", f"{runs:.0f}",
        f"{100 * runs / grid:.0f}", f"{100 * (runs + trials) / (grid + tuning):.0f}",
        f"{100 * np.mean([study.end.reached for study in found]):.0f}", *(f"{100 * c:.1f}" for c in covered),
        f"{100 * np.mean(ends[:, 0] >= 1):.1f}" if case.ratio == 0 else "",
    ]  # fmt: skip


def suitable(raw: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Whether the runs of a case draw their answers by themselves, and their base is known."""
    s = {**defaults, **raw}
    plain = s["draws"] == "own" and s["answers"] == "drawn" and not s["outcomes"] and s["base_runs"] == "exact"
    return plain and s["seeds"] > 1 and "study" not in raw


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    grid = tomllib.loads(GRID.read_text())
    print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
    for index, raw in enumerate(grid["cases"]):
        if suitable(raw, grid["defaults"]) and arguments.case in raw["name"]:
            cells = row(Case(raw, grid["defaults"]), arguments.simulations, np.random.default_rng([31, index]))
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
