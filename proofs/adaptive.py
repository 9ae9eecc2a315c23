"""Adaptive designs on the simulated truths of calibration_grid.toml, beside the full grid of each and the least runs.

    python proofs/adaptive.py [--simulations N] [--case WORDS] [--seed N]

The first table asks for a width: the one that the grid of the case has in the median, the larger one of both arms. The
grid has the sizes and seeds of the case. The adaptive design chooses among eight sizes a decade over the same range, in
batches of at least four runs. Runs of both are counted with trials: five rates at each size for a grid that is tuned,
and for the adaptive design what it asks for (`tuned`). The least runs are those of a design that knows both curves and
the spread of runs, see `adaptive_oracle`.

The second table asks whether the ratio exceeds 10, with at most 60 runs.

It exits with 1 unless the demands hold that `demands` states.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from adaptive_oracle import least_runs
from calibration import holds, intervals_of
from calibration_truths import ARMS, CLASSES, GRID, Case, class_probabilities, expected, shifted

from capacity_analysis.design.state import Ask, Batch, Goal, Measured, Setting, Stop
from capacity_analysis.design.steps import confidence, next_step
from capacity_analysis.statistics.hill_profile import Limits, limits_around
from capacity_analysis.statistics.spread import spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, Differences, differences
from capacity_analysis.thresholds.estimators import (
    CONFIDENCE,
    CurveEstimates,
    believes_hill,
    estimate_curve,
    hill_ratio,
    monotone_ratio,
)
from capacity_analysis.types import Array

PER_DECADE, RATES, BATCH, VALIDATION, MOST = 8, 5, 4, 512, 400
DECIDE, MOST_DECIDE = 10.0, 60
# Truths of each kind: both goals of the gain, steep, dips, ceilings, shared noise, steps, and a threshold out of range.
WIDTHS = (
    "identical arms, 3 seeds", "identical arms, 5 seeds, half the gain", "true ratio 100, steep",
    "sft dips below the base", "unequal ceilings", "noisy seeds that both arms share", "one step between sizes",
    "sft never reaches the target",
)  # fmt: skip
DECISIONS = ("identical arms, 3 seeds", "true ratio 10", "true ratio 100, steep")
HEADINGS = (
    "case", "half-width asked, decades", "runs of the grid", "runs, adaptive", "share, %", "tuned: share, %",
    "least runs", "reached, %", "sft covered, %", "grpo covered, %", "ratio covered, %", "claims of 10×, %",
)  # fmt: skip
DECISION_HEADINGS = (
    "case", "true ratio", "runs of the grid", "grid decides, %", "runs, adaptive", "decides, %", "of these above, %",
    "false, %", "ratio covered, %",
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


@dataclass(frozen=True)
class Estimates:
    """What the results on the test split say, with the project's own estimators."""

    data: Differences
    limits: Limits
    found: dict[str, CurveEstimates]
    measured: Measured

    def ratio(self, level: float) -> tuple[float, float]:
        """The interval of the ratio at some confidence."""
        again = list(self.found.values())
        if level != CONFIDENCE:
            again = [estimate_curve(self.data.take(i), self.limits, confidence=level) for i in range(len(ARMS))]
        both = bool(believes_hill(*self.found.values())[0])
        r = hill_ratio(self.data, self.limits, *again, level) if both else monotone_ratio(*again)
        return float(r.low[0]), float(r.high[0])


def estimates_of(case: Case, log_sizes: Array, results: Mapping[Ask, float | None]) -> Estimates:
    """The intervals of both arms by the results on the test split."""
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
    return Estimates(data, limits, found, Measured(thresholds, None, believed))


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
    """One simulated study: how it ended, its trained runs, and its 95 % intervals."""

    end: Stop
    runs: int
    thresholds: Mapping[str, tuple[float, float]]
    ratio: tuple[float, float]


def study_of(case: Case, goal: Goal, rng: np.random.Generator, tables: dict[tuple[str, int], Array]) -> Study:
    """Goes through the steps of one adaptive study."""
    setting = setting_of(case, goal)
    runs = Runs(case, setting.log_sizes, rng, tables)
    results: dict[Ask, float | None] = {}
    base = float(rng.binomial(VALIDATION, case.spec["base"]) / VALIDATION)
    looks: list[Measured] = []
    while isinstance(step := next_step(setting, results, base, looks), Batch):
        results |= {ask: runs.accuracy(ask) for ask in step.runs}
        if not step.runs[0].validation:
            found = estimates_of(case, setting.log_sizes, results)
            ratio = None if goal.decide is None else found.ratio(confidence(goal, len(ARMS)))
            looks.append(replace(found.measured, ratio=ratio))
    if not looks:
        raise ValueError(f"{case.name}: ended before any result: {step.why}")
    return Study(step, len(results), found.measured.thresholds, found.ratio(CONFIDENCE))


def covered(ends: list[tuple[float, float]], truth: float) -> float:
    """The share of intervals that hold the truth."""
    low, high = np.array(ends).T
    return float(np.mean(holds(low, high, truth)))


def of_grid(case: Case, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """The median half-width by the full grid of a case, the larger one of both arms, and how often it decides."""
    widest, decided = [], []
    for data in case.simulate(rng, n):
        found = intervals_of(data, case.target)
        halves = []
        for arm in ARMS:
            _, low, high = np.where(found[f"{arm} used"], found[f"{arm} hill"], found[f"{arm} monotone"])
            halves.append((high - low) / 2)
        widest.append(np.max(halves, axis=0))
        _, low, high = np.where(found["ratio used"], found["ratio hill"], found["ratio monotone"])
        decided.append((low > np.log10(DECIDE)) | (high < np.log10(DECIDE)))
    return float(np.median(np.concatenate(widest))), float(np.mean(np.concatenate(decided)))


@dataclass(frozen=True)
class Row:
    """A line of a table with the shares that are judged: of studies covered, and of studies with a false claim."""

    cells: list[str]
    covered: list[float]
    false: float | None


def width_row(case: Case, simulations: int, rng: np.random.Generator) -> Row:
    """A line of the first table."""
    half, _ = of_grid(case, max(simulations, 200), rng)
    asked = half if np.isfinite(half) else 0.25
    tables: dict[tuple[str, int], Array] = {}
    found = [study_of(case, Goal(asked, None, MOST), rng, tables) for _ in range(simulations)]
    runs = float(np.mean([study.runs for study in found]))
    arms = len(ARMS)
    grid = arms * len(case.log_sizes) * case.spec["seeds"]
    tuning, trials = arms * len(case.log_sizes) * RATES, arms * (RATES + 2 + 2 * 3 - 2)
    shares = [covered([study.thresholds[arm] for study in found], case.truth[arm]) for arm in ARMS]
    shares.append(covered([study.ratio for study in found], case.ratio))
    false = float(np.mean([study.ratio[0] >= 1 for study in found])) if case.ratio == 0 else None
    least = least_runs(case, setting_of(case, Goal(asked, None, MOST)).log_sizes, asked)
    cells = [
        case.name, f"{asked:.2f}" + ("" if np.isfinite(half) else " (grid open)"), f"{grid}", f"{runs:.0f}",
        f"{100 * runs / grid:.0f}", f"{100 * (runs + trials) / (grid + tuning):.0f}",
        "" if least is None else f"{least}", f"{100 * np.mean([study.end.reached for study in found]):.0f}",
        *(f"{100 * share:.1f}" for share in shares), "" if false is None else f"{100 * false:.1f}",
    ]  # fmt: skip
    return Row(cells, shares, false)


def decision_row(case: Case, simulations: int, rng: np.random.Generator) -> Row:
    """A line of the second table. A decision is false if the true ratio is on the other side, or is 10 itself."""
    _, grid_decides = of_grid(case, max(simulations, 200), rng)
    tables: dict[tuple[str, int], Array] = {}
    found = [study_of(case, Goal(None, DECIDE, MOST_DECIDE), rng, tables) for _ in range(simulations)]
    decided = [study for study in found if study.end.reached]
    above = ["above" in study.end.why for study in decided]
    side = np.sign(round(case.ratio - np.log10(DECIDE), 3))
    false = sum(side != (1 if one else -1) for one in above) / simulations
    share = covered([study.ratio for study in found], case.ratio)
    cells = [
        case.name, f"{10**case.ratio:.0f}", f"{len(ARMS) * len(case.log_sizes) * case.spec['seeds']}",
        f"{100 * grid_decides:.0f}", f"{np.mean([study.runs for study in found]):.0f}",
        f"{100 * len(decided) / simulations:.0f}", f"{100 * np.mean(above):.0f}" if decided else "",
        f"{100 * false:.1f}", f"{100 * share:.1f}",
    ]  # fmt: skip
    return Row(cells, [share], false)


def demands(widths: list[Row], decisions: list[Row], simulations: int) -> list[str]:
    """What does not hold, each a sentence.

    No share of covered studies is below 93 % by more than two standard errors. Their mean over the first table is 93 %
    or more. A claim of 10× at a true ratio of 1 is made in at most 2.5 % of studies, and so is a false decision there.
    """
    faults = []
    allowed = 0.93 - 2 * np.sqrt(0.93 * 0.07 / simulations)
    for row in widths:
        faults += [f"{row.cells[0]}: {100 * c:.1f} % are covered" for c in row.covered if c < allowed]
    mean = float(np.mean([c for row in widths for c in row.covered]))
    if widths and mean < 0.93:
        faults.append(f"{100 * mean:.1f} % are covered over all truths of the first table")
    for row in (*widths, *(d for d in decisions if d.cells[1] == "1")):
        if row.false is not None and row.false > 0.025:
            faults.append(f"{row.cells[0]}: {100 * row.false:.1f} % claim 10× falsely")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--seed", type=int, default=31)
    arguments = parser.parse_args()
    grid = tomllib.loads(GRID.read_text())
    raws = {raw["name"]: (index, raw) for index, raw in enumerate(grid["cases"]) if arguments.case in raw["name"]}
    made = []
    for headings, names, row_of in ((HEADINGS, WIDTHS, width_row), (DECISION_HEADINGS, DECISIONS, decision_row)):
        print("| " + " | ".join(headings) + " |\n" + "|---" * len(headings) + "|", flush=True)
        rows = []
        for index, raw in (raws[name] for name in names if name in raws):
            rng = np.random.default_rng([arguments.seed, index])
            rows.append(row_of(Case(raw, grid["defaults"]), arguments.simulations, rng))
            print("| " + " | ".join(rows[-1].cells) + " |", flush=True)
        print()
        made.append(rows)
    widths, decisions = made
    shares = np.array([row.covered for row in widths])
    if len(shares):
        print("Covered over all truths, sft, grpo and ratio: " + ", ".join(f"{100 * s:.1f} %" for s in shares.mean(0)))
    faults = demands(widths, decisions, arguments.simulations)
    print("\n".join(faults) or "All demands hold.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
