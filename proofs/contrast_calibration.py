"""Coverage, width and power of paired differences of accuracy, by simulation.

    python proofs/contrast_calibration.py [--studies 2000] [--out FILE]

Two methods, or three, answer the same 1,024 items with the same seeds. Logits are normal: of an item (1.5), of a seed
that all methods share (0.3), of item × method (0.3), and of seed × method, which varies. Prints the tables of
docs/commands.md. Coverage is of a true difference of 0, power of one of four points.

Beside our intervals stands the variant with one Student quantile, of Satterthwaite's degrees of freedom (Biometrics
1946). Everything else is the same. For one contrast of a balanced table, Kenward & Roger (Biometrics 1997) correct
nothing, because the variance is linear in its components.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize
from scipy.special import expit, stdtrit

from capacity_analysis.statistics.crossed import SeedVariance
from capacity_analysis.statistics.estimate import Estimate, difference_estimate, least_half_width
from capacity_analysis.types import Array
from capacity_analysis.verdict.arms import Arm, TaskArms
from capacity_analysis.verdict.contrast import Contrast, contrast

SEED = 20_261
ITEMS = 1024
OF_ITEM, OF_SEED, OF_ITEM_AND_METHOD, MIDDLE = 1.5, 0.3, 0.3, 0.5
OF_ARM = 0.05  # seed × method in the tables of verdicts
SHOWN = 0.04


@dataclass(frozen=True)
class World:
    """How runs scatter.

    Attributes:
        seeds: how many.
        spread: for each method, the standard deviation of its seeds, in logits.
        draws: the runs that share the uniforms of their samples: "apart" (none), "seed" or "common" (all).
    """

    seeds: int
    spread: tuple[float, ...]
    draws: str

    def answers(self, generator: np.random.Generator, shift: float = 0.0) -> Array:
        """One study, methods × seeds × items; the first method is better by `shift` logits."""
        methods, seeds = len(self.spread), self.seeds
        logits = MIDDLE + OF_ITEM * generator.standard_normal((1, 1, ITEMS))
        logits = logits + OF_SEED * generator.standard_normal((1, seeds, 1))
        logits = logits + OF_ITEM_AND_METHOD * generator.standard_normal((methods, 1, ITEMS))
        logits = logits + np.array(self.spread)[:, None, None] * generator.standard_normal((methods, seeds, 1))
        logits[0] += shift
        shape = {"apart": (methods, seeds), "seed": (1, seeds), "common": (1, 1)}[self.draws]
        return np.asarray(generator.random((*shape, ITEMS)) < expit(logits), dtype=np.float64)


def shift_for(difference: float, spread: float) -> float:
    """By how many logits a method must be better to be more accurate by `difference` on average."""
    scale = math.sqrt(OF_ITEM**2 + OF_SEED**2 + OF_ITEM_AND_METHOD**2 + spread**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def lacking(shift: float) -> float:
        return float(weights @ (expit(MIDDLE + shift + scale * nodes) - expit(MIDDLE + scale * nodes))) - difference

    return float(optimize.brentq(lacking, 0.0, 5.0))


def pair_table(studies: int, generator: np.random.Generator) -> list[str]:
    """Two methods of equal spread."""
    lines = [
        "| seeds | seed × method, logits | random numbers shared by | covered, % | median width, points "
        "| ideal width, points | 4 points shown, % | covered by Satterthwaite, % | its median width, points |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seeds in (2, 3, 5, 10):
        for spread in (0.0, 0.1, 0.3):
            for draws in ("apart", "seed", "common"):
                world = World(seeds, (spread, spread), draws)
                null = [difference_estimate(*world.answers(generator)) for _ in range(studies)]
                shift = shift_for(SHOWN, spread)
                true = [difference_estimate(*world.answers(generator, shift)) for _ in range(studies // 2)]
                ideal = 2 * 1.96 * float(np.std([e.value for e in null]))
                shown = np.mean([e.sign > 0 for e in true])
                shared = {"apart": "none", "seed": "runs of a seed", "common": "all runs"}[draws]
                lines.append(
                    f"| {seeds} | {spread:g} | {shared} | {_covered(null)} | {100 * _median_width(null):.1f} | "
                    f"{100 * ideal:.1f} | {100 * shown:.0f} | {_satterthwaite(null)} |"
                )
    return lines


def satterthwaite_half_width(found: Estimate) -> float:
    """Half the width of the interval with one quantile, of the variance and the rules of `found`."""
    crossed = found.crossed
    assert crossed is not None
    parts = [
        (crossed.seeds, crossed.seed_df),
        (crossed.items, crossed.item_df),
        (crossed.residual, crossed.residual_df),
    ]
    if crossed.dropped:
        parts = parts[1:2] if crossed.items >= crossed.residual else parts[2:]
    elif crossed.items <= crossed.residual:
        parts = parts[:1]
    known = sum(square**2 / df for square, df in parts if df)
    df = crossed.variance**2 / known if known > 0 else math.inf
    quantile = float(stdtrit(df, 0.975)) if math.isfinite(df) else 1.96
    return max(quantile * math.sqrt(crossed.variance), least_half_width(ITEMS, 0.95))


def _satterthwaite(found: Sequence[Estimate]) -> str:
    """Coverage and median width of the variant, two entries of a row."""
    halves = [satterthwaite_half_width(e) for e in found]
    covered = np.mean([abs(e.value) <= half for e, half in zip(found, halves, strict=True)])
    return f"{100 * covered:.1f} | {200 * np.median(halves):.1f}"


def pooling_table(studies: int, generator: np.random.Generator) -> list[str]:
    """Three methods of equal or unequal spread: each pair alone, and pooled where the test allows it."""
    lines = [
        "| seeds | seed × method of the three, logits | covered alone, % | covered, % | mean width alone, points "
        "| mean width, points | pooled, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for seeds in (3, 5):
        for spread in ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1), (0.3, 0.3, 0.3), (0.3, 0.0, 0.0), (0.3, 0.3, 0.0)):
            alone: list[list[Estimate]] = [[], [], []]
            pooled: list[list[Estimate]] = [[], [], []]
            for _ in range(studies):
                arms = World(seeds, spread, "seed").answers(generator)
                over = SeedVariance.of(arms.mean(2))
                for place, (one, two) in enumerate(((0, 1), (0, 2), (1, 2))):
                    alone[place].append(difference_estimate(arms[one], arms[two]))
                    pooled[place].append(difference_estimate(arms[one], arms[two], over_methods=over))
            used = np.mean([e.crossed is not None and e.crossed.pooled_p is not None for p in pooled for e in p])
            least = [" / ".join(_covered(pair) for pair in kind) for kind in (alone, pooled)]
            widths = [" / ".join(f"{100 * _mean_width(pair):.1f}" for pair in kind) for kind in (alone, pooled)]
            lines.append(
                f"| {seeds} | {', '.join(f'{s:g}' for s in spread)} | {least[0]} | {least[1]} | {widths[0]} | "
                f"{widths[1]} | {100 * used:.0f} |"
            )
    return lines


def verdict_table(studies: int, generator: np.random.Generator) -> list[str]:
    """What `capacity verdict` says of two arms: equal ones, and one that is better by four points."""
    lines = [
        "| runs of each arm | items | equal arms told apart, % | covered, % | 4 points shown, % |",
        "|---|---|---|---|---|",
    ]
    shift = shift_for(SHOWN, OF_ARM)
    for runs, size, paired in ((1, 1, True), (1, 8, True), (3, 1, True), (5, 1, True), (5, 1, False), (5, 8, True)):
        told, covered, shown = 0, 0, 0
        for _ in range(studies):
            equal, better = (_contrast(runs, size, paired, by, generator) for by in (0.0, shift))
            told += equal.p <= 0.05
            covered += equal.estimate.sign == 0
            shown += better.p <= 0.05 and better.estimate.value > 0
        kind = "one" if runs == 1 else f"{runs}, {'seeds paired' if paired else 'other seeds'}"
        items = "1,024" if size == 1 else f"1,024 in {ITEMS // size} clusters"
        shares = " | ".join(f"{100 * count / studies:.1f}" for count in (told, covered, shown))
        lines.append(f"| {kind} | {items} | {shares} |")
    return lines


def one_run_table(studies: int, generator: np.random.Generator) -> list[str]:
    """What `capacity verdict` says of one run each: of two equal models, and of two equal methods by their seeds."""
    lines = [
        "| what differs between the two runs | scatter of seeds, points | equal arms told apart, % "
        "| with --seed-spread, % | 4 points shown, % | with --seed-spread, % |",
        "|---|---|---|---|---|---|",
    ]
    for what, of_arm, paired in (("nothing", 0.0, True), ("seed × method", OF_ARM, True), ("seed", OF_ARM, False)):
        scatter = math.hypot(of_arm, 0.0 if paired else OF_SEED)
        spread, shift = _points_of(scatter), shift_for(SHOWN, of_arm)
        counts = np.zeros((2, 2))
        for _ in range(studies):
            for row, by in enumerate((0.0, shift)):
                state = generator.bit_generator.state
                for column, stated in enumerate((None, spread or None)):
                    generator.bit_generator.state = state  # the same two runs are judged in both ways
                    found = _contrast(1, 1, paired, by, generator, of_arm=of_arm, seed_spread=stated)
                    counts[row, column] += found.p <= 0.05 and (row == 0 or found.estimate.value > 0)
        shares = [f"{100 * count / studies:.1f}" for count in counts.ravel()]
        if not spread:
            shares[1] = shares[3] = "–"
        lines.append(f"| {what} | {100 * spread:.1f} | {' | '.join(shares)} |")
    return lines


def _points_of(scatter: float) -> float:
    """The standard deviation of accuracy that normal logits of a run with this standard deviation make, to first order.

    The slope of accuracy in a shift of all logits is taken by a difference quotient.
    """
    scale, step = math.sqrt(OF_ITEM**2 + OF_ITEM_AND_METHOD**2), 1e-3
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    slope = weights @ (expit(MIDDLE + step + scale * nodes) - expit(MIDDLE + scale * nodes)) / weights.sum() / step
    return float(scatter * slope)


def _contrast(
    runs: int,
    size: int,
    paired: bool,
    shift: float,
    generator: np.random.Generator,
    *,
    of_arm: float = OF_ARM,
    seed_spread: float | None = None,
) -> Contrast:
    """One study of two arms, whose items in a cluster are hard for an arm together."""
    logits = MIDDLE + OF_ITEM * generator.standard_normal(ITEMS)
    of_seeds = OF_SEED * generator.standard_normal((2, runs, 1))
    arms = []
    for place, (name, better) in enumerate((("a", 0.0), ("b", shift))):
        own = OF_ITEM_AND_METHOD * np.repeat(generator.standard_normal(ITEMS // size), size)
        own = own + better + of_seeds[0 if paired else place] + of_arm * generator.standard_normal((runs, 1))
        scores = np.asarray(generator.random((runs, ITEMS)) < expit(logits + own), dtype=np.float64)
        seeds = tuple(range(runs)) if paired else tuple(range(place * runs, (place + 1) * runs))
        arms.append(Arm(name, seeds, scores, True, ("",)))
    clusters = None if size == 1 else np.repeat(np.arange(ITEMS // size), size).astype(np.float64)
    task = TaskArms("", "correct", tuple(map(str, range(ITEMS))), clusters, tuple(arms), 0, True, (1, 1))
    return contrast(task, *arms, alpha=0.05, margin=None, seed_spread=seed_spread)


def _covered(found: Sequence[Estimate]) -> str:
    return f"{100 * np.mean([e.sign == 0 for e in found]):.1f}"


def _widths(found: Sequence[Estimate]) -> list[float]:
    return [e.high - e.low for e in found if e.high is not None and e.low is not None]


def _median_width(found: Sequence[Estimate]) -> float:
    return float(np.median(_widths(found)))


def _mean_width(found: Sequence[Estimate]) -> float:
    return float(np.mean(_widths(found)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(SEED)
    lines: list[str] = []
    own = np.random.default_rng(SEED)
    last = np.random.default_rng(SEED)
    tables = ((pair_table, generator), (pooling_table, generator), (verdict_table, own), (one_run_table, last))
    for table, draws in tables:
        part = [*table(options.studies, draws), ""]
        print("\n".join(part), flush=True)
        lines += part
    error = 100 * math.sqrt(0.05 * 0.95 / options.studies)
    lines.append(f"{options.studies} studies a row; Monte-Carlo standard error at 95 %: {error:.2f}.")
    print(lines[-1])
    if options.out:
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
