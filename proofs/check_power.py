"""Power and false alarms of `capacity check`, by simulation of the worlds in check_power_grid.toml.

    python proofs/check_power.py [--simulations 4000] [--projects 400] [--out FILE]
    python proofs/check_power.py --theory

Prints the tables of docs/ci.md. "Worse" at a true drop of 0 and "non-inferior" at a true drop of the margin are false;
each must stay at or below alpha, Monte-Carlo error allowed for. Then whole projects that never change are checked 200
times against one baseline; and faults are tried that only some seeds show, which no test of few seeds can find.
"""

import argparse
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from capacity_analysis.check.alarms import AlarmBudget, Entry
from capacity_analysis.check.collapses import PART, collapse_check
from capacity_analysis.check.judge import judge
from capacity_analysis.statistics.seed_tests import mean_change, power, size_changes
from capacity_analysis.types import Array

GRID = Path(__file__).with_name("check_power_grid.toml")
SEED = 20_260


@dataclass(frozen=True)
class World:
    """How runs scatter; see the grid."""

    spread: tuple[float, ...]
    together: float
    repeats: float
    paired: bool
    collapse: float

    def noise(self, seeds: int, generator: np.random.Generator) -> Array:
        """Standard noise of `seeds` runs at each size, correlated over sizes."""
        common, own = (self._draw((seeds, n), generator) for n in (1, len(self.spread)))
        return math.sqrt(self.together) * common + math.sqrt(1 - self.together) * own

    def _draw(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        z = generator.standard_normal(shape)
        c = self.collapse
        # A mixture of N(0, s²) and N(−4 s, s²), centred, with s such that the variance is 1: s = fall / 4.
        if c == 0:
            return z
        fall = 1.0 / math.sqrt(c * (1 - c) + 1 / 16)
        return fall * (0.25 * z - (generator.random(shape) < c) + c)

    def measure(self, truth: Array, shared: Array, generator: np.random.Generator, answers: int) -> Array:
        """Accuracies, seeds × sizes, in whole answers. `shared` is the part of the noise that a seed repeats."""
        fresh = self.noise(len(shared), generator)
        noise = math.sqrt(self.repeats) * shared + math.sqrt(1 - self.repeats) * fresh
        return np.clip(np.round((truth + np.array(self.spread) * noise) * answers), 0, answers) / answers


@dataclass(frozen=True)
class Judged:
    """What one check of one curve found.

    Attributes:
        p: of a drop of the mean.
        beyond: the drop exceeds the margin.
        collapses_p: of more collapses; 1 where no larger share of seeds collapsed.
        passes: the outcome is non-inferior.
    """

    p: float
    beyond: bool
    collapses_p: float
    passes: bool

    def worse(self, level: float) -> bool:
        """Whether "worse" is claimed at a level."""
        return (self.beyond and self.p <= (1 - PART) * level) or self.collapses_p <= PART * level


def one_check(world: World, grid: dict[str, Any], drop: float, seeds: int, generator: np.random.Generator) -> Judged:
    """One check of a project that fell by `drop` at every size."""
    truth = np.array(grid["accuracies"])
    shared = world.noise(seeds, generator)
    old = world.measure(truth, shared, generator, grid["answers"])
    shared = shared if world.paired else world.noise(seeds, generator)
    new = world.measure(truth - drop, shared, generator, grid["answers"])
    return judged(new, old, world.paired, grid)


def judged(new: Array, old: Array, paired: bool, grid: dict[str, Any]) -> Judged:
    """What the check says of accuracies, seeds × sizes."""
    answers = np.full(new.shape[1], grid["answers"])
    margin, alpha = grid["margin"], grid["alpha"]
    change = mean_change(new, old, paired=paired, margin=margin, alpha=alpha, resolution=1 / grid["answers"])
    collapses = collapse_check(new, old, answers, 0.0)
    passes = False
    if change.p_inferior <= alpha:
        sizes = size_changes(new, old, answers, paired=paired, alpha=alpha)
        passes = judge(change, sizes, [""] * len(sizes), margin, 0.0, collapses)[0] == "non-inferior"
    collapses_p = collapses.p if collapses.more else 1.0
    return Judged(change.p_worse, change.estimate < -margin, collapses_p, passes)


def levels_by_check(grid: dict[str, Any]) -> dict[str, list[float]]:
    """Level of "worse" at each check number: runs that never repeat, and runs that were identical until then."""
    budget = AlarmBudget(grid["alpha"], grid["alarms_per_100"] / 100)

    def entry(spent: float) -> Entry:
        return Entry(baseline="", evidence="", verdict="", earned=budget.rate, spent=spent)

    table: dict[str, list[float]] = {"never repeat": [], "identical so far": []}
    for number in grid["checks"]:
        for name, row in table.items():
            past: list[Entry] = []
            for _ in range(number - 1):
                spent = budget.next_level(past, "new").level if name == "never repeat" else 0.0
                past.append(entry(spent))
            row.append(budget.next_level(past, "new").level)
    return table


def power_tables(grid: dict[str, Any], simulations: int, generator: np.random.Generator) -> list[str]:
    levels = levels_by_check(grid)
    columns = [("one check", grid["alpha"])]
    columns += [(f"check {n}, {name}", level) for name, row in levels.items()
                for n, level in zip(grid["checks"], row, strict=True)]  # fmt: skip
    by_level: dict[float, list[str]] = {}
    for name, level in columns:
        by_level.setdefault(round(level, 9), []).append(name)
    lines = ['Levels of "worse": ' + "; ".join(f"{level:g}: {', '.join(n)}" for level, n in by_level.items()) + ".", ""]
    heads = [f"worse, % (level {level:g})" for level in by_level]
    lines.append("| world | seeds | true drop, points | " + " | ".join(heads) + " | non-inferior, % |")
    lines.append("|---|---|---|" + "---|" * (len(heads) + 1))
    worst = {"worse": 0.0, "non-inferior": 0.0}
    for name, raw in grid["worlds"].items():
        world = World(**{**raw, "spread": tuple(raw["spread"])})
        for seeds in grid["seeds"]:
            for drop in grid["drops"]:
                results = [one_check(world, grid, drop, seeds, generator) for _ in range(simulations)]
                shares = [float(np.mean([found.worse(level) for found in results])) for level in by_level]
                passes = float(np.mean([found.passes for found in results]))
                if drop == 0:
                    worst["worse"] = max(
                        worst["worse"], *(s / level for s, level in zip(shares, by_level, strict=True))
                    )
                if drop == grid["margin"]:
                    worst["non-inferior"] = max(worst["non-inferior"], passes / grid["alpha"])
                cells = [f"{100 * s:.1f}" for s in [*shares, passes]]
                lines.append(f"| {name} | {seeds} | {100 * drop:g} | " + " | ".join(cells) + " |")
    error = 100 * math.sqrt(grid["alpha"] * (1 - grid["alpha"]) / simulations)
    lines += [
        "",
        f"{simulations} simulations a row; Monte-Carlo standard error at {100 * grid['alpha']:g} %: {error:.2f}.",
    ]
    lines.append(
        f'Largest share of what is allowed: false "worse" {worst["worse"]:.2f}, '
        f'false "non-inferior" {worst["non-inferior"]:.2f}.'
    )
    return lines


def calibration_table(grid: dict[str, Any], simulations: int, generator: np.random.Generator) -> list[str]:
    """How often an unchanged project looks changed, margin aside: by seeds, by the pooled t, by the band over sizes."""
    lines = [
        "| world | seeds | seeds as the unit, % | variance pooled over sizes, % | some size moved, % |",
        "|---|---|---|---|---|",
    ]
    alpha, truth, answers = grid["alpha"], np.array(grid["accuracies"]), grid["answers"]
    for name, raw in grid["worlds"].items():
        world = World(**{**raw, "spread": tuple(raw["spread"])})
        for seeds in grid["seeds"]:
            found = np.zeros(3)
            for _ in range(simulations):
                shared = world.noise(seeds, generator)
                old = world.measure(truth, shared, generator, answers)
                new = world.measure(
                    truth, shared if world.paired else world.noise(seeds, generator), generator, answers
                )
                change = mean_change(new, old, paired=world.paired, margin=grid["margin"], alpha=alpha)
                sizes = size_changes(new, old, np.full(len(truth), answers), paired=world.paired, alpha=alpha)
                moved = any(size.low > 0 or size.high < 0 for size in sizes)
                found += (change.p_worse <= alpha, pooled_p(new, old, world.paired) <= alpha, moved)
            lines.append(f"| {name} | {seeds} | " + " | ".join(f"{100 * f / simulations:.1f}" for f in found) + " |")
    return lines


def theory_table(grid: dict[str, Any]) -> list[str]:
    """Exact power for normal seeds in pairs, by the formulas that `check` prints its power with."""
    levels = sorted({round(level, 9) for row in levels_by_check(grid).values() for level in row}, reverse=True)
    heads = [f"worse, % (level {level:g})" for level in levels]
    lines = ["| world | seeds | true drop, points | " + " | ".join(heads) + " | non-inferior, % |"]
    lines.append("|---|---|---|" + "---|" * (len(heads) + 1))
    for name, raw in grid["worlds"].items():
        if raw["collapse"] or not raw["paired"]:
            continue
        spread, rho = np.array(raw["spread"]), raw["together"]
        one = rho * spread.mean() ** 2 + (1 - rho) * (spread**2).mean() / len(spread)
        for seeds in grid["seeds"]:
            error, df = math.sqrt(2 * (1 - raw["repeats"]) * one / seeds), seeds - 1
            for drop in grid["drops"]:
                shares = [power(drop, error, df, grid["margin"], (1 - PART) * level) for level in levels]
                quantile = stats.t.ppf(1 - grid["alpha"], df)
                shares.append(float(stats.nct.sf(quantile, df, (grid["margin"] - drop) / error)))
                cells = " | ".join(f"{100 * share:.1f}" for share in shares)
                lines.append(f"| {name} | {seeds} | {100 * drop:g} | {cells} |")
    return lines


def pooled_p(new: Array, old: Array, paired: bool) -> float:
    """The method that was not chosen: t with the seed variance pooled over sizes, sizes taken as independent."""
    seeds, sizes = new.shape
    parts = [new - old] if paired else [new, old]
    variance = sum(float(part.var(0, ddof=1).mean()) for part in parts) / (seeds * sizes)
    return float(stats.t.cdf((new.mean() - old.mean()) / math.sqrt(variance), sizes * len(parts) * (seeds - 1)))


def collapse_table(grid: dict[str, Any], simulations: int, generator: np.random.Generator) -> list[str]:
    """What is said of a fault that makes a few seeds collapse at all sizes and leaves the others as they were."""
    lines = [
        "| seeds | a seed falls, points | in, % of cases | mean drop, points | no seed shows it, % "
        "| worse by the mean alone, % | worse, % | non-inferior, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    raw, truth = grid["worlds"][grid["collapses"]["world"]], np.array(grid["accuracies"])
    world = World(**{**raw, "spread": tuple(raw["spread"])})
    for seeds in grid["seeds"]:
        for chance, fall in grid["collapses"]["kinds"]:
            found = np.zeros(3)
            for _ in range(simulations):
                shared = world.noise(seeds, generator)
                fallen = fall * (generator.random((seeds, 1)) < chance)
                old = world.measure(truth, shared, generator, grid["answers"])
                new = world.measure(truth - fallen, shared, generator, grid["answers"])
                one = judged(new, old, world.paired, grid)
                found += (one.p <= grid["alpha"] and one.beyond, one.worse(grid["alpha"]), one.passes)
            cells = [100 * fall, 100 * chance, 100 * chance * fall]
            shares = [100 * (1 - chance) ** seeds, *(100 * found / simulations)]
            row = [f"{c:g}" for c in cells] + [f"{s:.1f}" for s in shares]
            lines.append(f"| {seeds} | " + " | ".join(row) + " |")
    return lines


def project_table(grid: dict[str, Any], projects: int, generator: np.random.Generator, checks: int = 200) -> list[str]:
    """Alarms in 200 checks of projects that never change, all against one baseline of their own."""
    budget = AlarmBudget(grid["alpha"], grid["alarms_per_100"] / 100)
    lines = [
        "| world | seeds | runs repeat | mean alarms | 95 % of projects at most | most | pass, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("unlike, sizes apart", "unlike, collapsing", "other seeds", "alike, sizes together"):
        raw = grid["worlds"][name]
        world = World(**{**raw, "spread": tuple(raw["spread"])})
        for seeds in grid["seeds"]:
            for every in (1, 20):
                counts, passed = [], []
                for _ in range(projects):
                    alarms, good = project(world, grid, budget, seeds, checks, every, generator)
                    counts.append(alarms)
                    passed.append(good / checks)
                repeat = "never" if every == 1 else f"but for every {every}th"
                lines.append(
                    f"| {name} | {seeds} | {repeat} | {np.mean(counts):.2f} | {np.quantile(counts, 0.95):.0f} | "
                    f"{max(counts)} | {100 * np.mean(passed):.1f} |"
                )
    lines += [
        "",
        f"{projects} projects a row. Promised: on average at most {checks * budget.rate:g} alarms in {checks} checks.",
    ]
    return lines


def project(
    world: World,
    grid: dict[str, Any],
    budget: AlarmBudget,
    seeds: int,
    checks: int,
    every: int,
    generator: np.random.Generator,
) -> tuple[int, int]:
    """Alarms and passes in `checks` checks; every `every`-th has fresh runs, the others repeat the baseline."""
    truth = np.array(grid["accuracies"])
    shared = world.noise(seeds, generator)
    old = world.measure(truth, shared, generator, grid["answers"])
    past: list[Entry] = []
    alarms = passes = 0
    for number in range(1, checks + 1):
        level = 0.0
        if number % every == 0:
            draw = shared if world.paired else world.noise(seeds, generator)
            new = world.measure(truth, draw, generator, grid["answers"])
            level = budget.next_level(past, str(number)).level
            found = judged(new, old, world.paired, grid)
            alarms += found.worse(level)
            passes += found.passes
        else:
            passes += 1
        past.append(Entry(baseline="", evidence=str(number), verdict="", earned=budget.rate, spent=level))
    return alarms, passes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--projects", type=int, default=400)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--theory", action="store_true", help="the exact power for normal seeds, without simulation")
    options = parser.parse_args(arguments)
    grid = tomllib.loads(GRID.read_text())
    if options.theory:
        print("\n".join(theory_table(grid)))
        return
    generator = np.random.default_rng(SEED)
    lines: list[str] = []
    for table, count in (
        (calibration_table, options.simulations),
        (power_tables, options.simulations),
        (project_table, options.projects),
        (collapse_table, options.simulations),
    ):
        part = [*table(grid, count, generator), ""]
        print("\n".join(part), flush=True)
        lines += part
    if options.out:
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
