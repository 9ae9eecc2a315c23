"""Coverage of thresholds and ratios on the simulated truths of calibration_grid.toml.

    python proofs/calibration.py [--simulations N] [--seed N] [--case WORDS] [--details]

Each case: how often the default interval holds the truth (threshold of sft, of grpo, their ratio), with Monte-Carlo
standard error; the median width in decades; how often each estimator was the answer; false claims, a lower end of the
ratio at or above 10 at true ratio 1. Where a truth lies outside of the tested sizes, coverage is one-sided: the
interval must be open.
"""

import argparse
import csv
import json
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from capacity_analysis.statistics.hill import fit_hill
from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.statistics.spread import Spread, drawn_variance, residual_variance, spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, Differences, differences
from capacity_analysis.thresholds.estimators import (
    CurveEstimates,
    believes_hill,
    estimate_curve,
    hill_ratio,
    monotone_ratio,
)
from capacity_analysis.thresholds.shared_draws import shared_draw_covariance
from capacity_analysis.types import Array

GRID = Path(__file__).with_name("calibration_grid.toml")
ARMS = ("sft", "grpo")
CLASSES = 8
HEADINGS = ("case", "sft", "grpo", "ratio", "false claims %")
LEGEND = (
    "Coverage of the default interval in % ± Monte-Carlo error (median width in decades, as a multiple of the width "
    "that holds 95 % of the estimates; % of studies answered by the Hill curve, the others by the monotone estimator)."
)


def curve(spec: dict[str, Any], log_sizes: Array) -> Array:
    """Accuracy at log10 sizes."""
    if spec["kind"] == "steps":
        place = np.searchsorted(np.log10(spec["sizes_of_steps"]), log_sizes, side="right")
        return np.array([spec["lower"], *spec["accuracies"]])[place]
    share = 1 / (1 + 10 ** (spec["slope"] * (np.log10(spec["midpoint"]) - log_sizes)))
    value = spec["lower"] + (spec["upper"] - spec["lower"]) * share
    if spec["kind"] == "dip":
        value = value - spec["depth"] * np.exp(-((log_sizes - np.log10(spec["at"])) ** 2) / (2 * spec["width"] ** 2))
    return np.asarray(value)


def expected(spec: dict[str, Any], log_sizes: Array, jitter: float) -> Array:
    """Accuracy averaged over seeds that do not collapse."""
    if jitter == 0:
        return curve(spec, log_sizes)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    values = np.stack([curve(spec, log_sizes + jitter * z) for z in nodes])
    return np.asarray(weights @ values / weights.sum())


def true_threshold(spec: dict[str, Any], target: float, jitter: float) -> float:
    """log10 of the smallest size whose expected accuracy reaches the target; inf if none does."""
    grid = np.linspace(-6, 14, 200_001)
    reached = np.flatnonzero(expected(spec, grid, jitter) >= target)
    return float(grid[reached[0]]) if len(reached) else np.inf


def class_probabilities(mean: Array, concentration: float) -> Array:
    """Chances of CLASSES equally frequent kinds of items whose mean is `mean` (last axis), spread like a Beta."""
    flat = np.clip(mean.ravel(), 1e-3, 1 - 1e-3)
    u, inverse = np.unique(flat, return_inverse=True)
    ranks = (np.arange(CLASSES) + 0.5) / CLASSES
    table = stats.beta.ppf(ranks, concentration * u[:, None], concentration * (1 - u[:, None]))
    return shifted(table, u)[inverse].reshape(*mean.shape, CLASSES)


def shifted(chances: Array, mean: Array) -> Array:
    """Chances moved towards 0 or 1 so that their mean over the last axis is `mean`."""
    now = chances.mean(-1)
    up, down = (mean - now)[..., None], (mean / now)[..., None]
    return np.where(up > 0, chances + up * (1 - chances) / (1 - now)[..., None], chances * np.minimum(down, 1))


class Case:
    """One simulated truth of the grid: two arms, a target, and the sizes that reach it."""

    def __init__(self, raw: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.spec = {**defaults, **raw}
        self.deviations: dict[str, Array] = {}
        if "study" in raw:
            self.spec |= self.of_study(raw["study"], raw["model"])
        s = self.spec
        self.name: str = s["name"]
        self.log_sizes = np.log10(np.array(s["sizes"], dtype=float))
        ceiling = float(expected(s["grpo"], self.log_sizes[-1:], s["jitter"])[0])
        self.absolute = "target" in s
        self.target = s["target"] if self.absolute else s["base"] + s["gain"] * (ceiling - s["base"])
        self.truth = {arm: true_threshold(s[arm], self.target, s["jitter"]) for arm in ARMS}
        with np.errstate(invalid="ignore"):
            self.ratio = self.truth["sft"] - self.truth["grpo"]

    def of_study(self, table: str, model: str) -> dict[str, Any]:
        """The curves of a study, each a Hill curve through its means, and the deviations of its runs, K × S."""
        with (GRID.parents[1] / "studies/results" / table).open() as lines:
            rows = [r for r in csv.DictReader(lines) if r["model"] == model and r["split"] == "test"]
        runs = {arm: [r for r in rows if r["method"] == arm] for arm in ARMS}
        sizes = sorted({int(r["trained_parameters"]) for r in runs["sft"]})
        found: dict[str, Any] = {"sizes": sizes, "items": int(runs["sft"][0]["n_items"])}
        for arm in ARMS:
            seeds = sorted({int(r["seed"]) for r in runs[arm]})
            by_run = {(int(r["trained_parameters"]), int(r["seed"])): float(r["accuracy"]) for r in runs[arm]}
            accuracy = np.array([[by_run[size, seed] for seed in seeds] for size in sizes])
            through = fit_hill(sizes, accuracy.mean(1)).curve
            found[arm] = {"kind": "hill"} | {
                name: getattr(through, name) for name in ("lower", "upper", "midpoint", "slope")
            }
            self.deviations[arm] = accuracy - accuracy.mean(1, keepdims=True)
        protocol = runs["sft"][0]["protocol"]
        found["base"] = next(float(r["accuracy"]) for r in rows if r["method"] == "base" and r["protocol"] == protocol)
        return found

    def seed_means(self, rng: np.random.Generator, n: int) -> dict[str, Array]:
        """Expected accuracy of every run: n × sizes × seeds."""
        s, shape = self.spec, (n, len(self.log_sizes), self.spec["seeds"])
        common = rng.normal(size=shape), rng.normal(size=(n, 1, s["seeds"]))
        grown = s["seed_sd"] * np.linspace(1.0, s["growth"], len(self.log_sizes))[:, None]
        out = {}
        if self.deviations:
            # Normal seeds with the covariance that the runs of the study have over both arms and all sizes.
            parts = rng.normal(size=(n, self.deviations["sft"].shape[1], s["seeds"]))
            for arm, found in self.deviations.items():
                moved = np.einsum("kr,nrs->nks", found, parts) / np.sqrt(found.shape[1] - 1)
                out[arm] = np.clip(curve(s[arm], self.log_sizes)[:, None] + moved, 1e-3, 1 - 1e-3)
            return out
        for arm in ARMS:
            own = rng.normal(size=shape), rng.normal(size=(n, 1, s["seeds"]))
            shift, move = (
                np.sqrt(s["shared"]) * c + np.sqrt(1 - s["shared"]) * o for c, o in zip(common, own, strict=True)
            )
            centre = curve(s[arm], self.log_sizes[:, None] + s["jitter"] * move) if s["jitter"] else None
            flat = curve(s[arm], self.log_sizes)[:, None]
            means = (flat if centre is None else centre) + grown * shift
            if s["collapses"]:
                fallen = rng.random((n, 1, s["seeds"])) < s["collapses"]
                means = np.where(fallen, s["base"] + s["kept"] * (means - s["base"]), means)
            out[arm] = np.clip(means, 1e-3, 1 - 1e-3)
        return out

    def these_items(self, rng: np.random.Generator, n: int) -> Differences:
        """Both arms on items that are the same in every simulation."""
        s, means = self.spec, self.seed_means(rng, n)
        if s["answers"] == "rounded":
            spreads, base = self.rounded(rng, means), np.full(n, s["base"])
        else:
            spreads, base = self.drawn(rng, means)
        return self.against(spreads, base, None)

    def drawn(self, rng: np.random.Generator, means: dict[str, Array]) -> tuple[dict[str, Spread], Array]:
        """The spreads and the base where runs draw their answers."""
        s, items, n = self.spec, self.spec["items"], len(means["sft"])
        per_class = np.full(CLASSES, items // CLASSES)
        per_class[: items % CLASSES] += 1
        alike = np.rint(s["alike"] * per_class).astype(int) if s["draws"] != "own" else np.zeros(CLASSES, dtype=int)
        rows = s["seeds"] if s["draws"] == "seed" else 1
        uniforms = rng.random((n, 1, rows, CLASSES, int(alike.max())), dtype=np.float32)
        wanted = np.arange(alike.max()) < alike[:, None]

        def right(accuracy: Array, central: Array) -> Array:
            table = class_probabilities(central, s["concentration"])[None, :, None, :]
            chances = np.clip(shifted(np.broadcast_to(table, (*accuracy.shape, CLASSES)), accuracy), 0, 1)
            # Classes differ in size by one item, which moves the expectation by less than 0.01 points.
            found = rng.binomial(per_class - alike, chances).sum(-1)
            for k in range(accuracy.shape[1]):
                below = uniforms[:, 0] < chances[:, k, :, :, None].astype(np.float32)
                found[:, k] += (below & wanted).sum((-1, -2))
            return found

        spreads = {}
        for arm in ARMS:
            central = expected(s[arm], self.log_sizes, 0.0)
            shares = right(means[arm], central) / items
            spreads[arm] = spread_of_seeds(shares, np.full(len(self.log_sizes), float(items)))
        base = np.full(n, s["base"])
        if s["base_runs"] == "one":
            uniforms = rng.random(uniforms[:, :, :1].shape, dtype=np.float32)
        if s["base_runs"] != "exact":
            runs = np.full((n, 1, rows if s["base_runs"] == "shared" else 1), s["base"])
            base = (right(runs, np.array([s["base"]])) / items).mean((1, 2))
        return spreads, base

    def rounded(self, rng: np.random.Generator, means: dict[str, Array]) -> dict[str, Spread]:
        """The spreads where each run answers as many items right as its accuracy says, to the nearest whole item.

        Each study has another number of items, or all would be rounded alike.
        """
        items = self.spec["items"]
        count = rng.integers(items, 2 * items, size=(len(means["sft"]), 1)).astype(float)
        right = {arm: np.rint(means[arm] * count[:, :, None]) for arm in ARMS}
        return {arm: spread_of_seeds(right[arm] / count[:, :, None], count) for arm in ARMS}

    def against(self, spreads: dict[str, Spread], base: Array, items: Array | None) -> Differences:
        """Both arms against the target. `items`: n × 2K × 2K over items, sft first."""
        s, k, n = self.spec, len(self.log_sizes), len(base)
        q, top = (0.0 if self.absolute else s["gain"]), spreads["grpo"].mean[:, -1]
        target = np.full(n, self.target) if self.absolute else base + q * (top - base)
        of_base: Array | float = 0.0
        if items is None and s["draws"] == "common":
            means = np.concatenate([spreads[arm].mean for arm in ARMS], axis=1)
            answers = np.full(2 * k, float(s["items"]))
            items = shared_draw_covariance(means, None if self.absolute else base, answers, q, 2 * k - 1)
        elif items is None and s["base_runs"] != "exact" and not self.absolute:
            runs = s["seeds"] if s["base_runs"] == "shared" else 1
            multiple = np.minimum(drawn_variance(list(spreads.values())), 1.0 / s["items"])
            of_base = (1 - q) ** 2 * base * (1 - base) * multiple / runs
        seeds = range(s["seeds"])
        aim = Aim(target, q, 2 * k - 1, of_base)
        return differences([self.log_sizes] * 2, [spreads[arm] for arm in ARMS], [seeds, seeds], aim, items)

    def with_outcomes(self, rng: np.random.Generator, n: int) -> Differences:
        """Both arms with the covariance of their outcomes over items.

        The items are drawn anew in every simulation, or the items stay and all runs share one draw.
        """
        s, items, k = self.spec, self.spec["items"], len(self.log_sizes)
        means, share = self.seed_means(rng, n), 0.0 if self.absolute else self.spec["gain"]
        base = class_probabilities(np.array([s["base"]]), s["concentration"])[0]
        tables = {a: class_probabilities(expected(s[a], self.log_sizes, 0.0), s["concentration"]) for a in ARMS}
        accuracy = {a: np.empty(means[a].shape) for a in ARMS}
        twice = {a: np.empty((n, k)) for a in ARMS}
        over_items, untrained = np.empty((n, 2 * k, 2 * k)), np.empty(n)
        same = np.arange(items) % CLASSES
        alike = rng.permutation(items) < s["alike"] * items
        for i in range(n):
            kind = same if s["draws"] == "common" else rng.integers(CLASSES, size=items)
            uniforms = rng.random(items, dtype=np.float32)

            def right(chances: Array, uniforms: Array = uniforms) -> Array:
                own = rng.random(chances.shape, dtype=np.float32)
                drawn = np.where(alike, uniforms, own) if s["draws"] == "common" else own
                return (drawn < chances).astype(np.float32)

            outcomes = {}
            for arm in ARMS:
                table = np.broadcast_to(tables[arm][:, None, :], (*means[arm].shape[1:], CLASSES))
                found = right(shifted(table, means[arm][i]).astype(np.float32)[:, :, kind])
                accuracy[arm][i] = found.mean(2)
                twice[arm][i] = [residual_variance(size) for size in found]
                outcomes[arm] = found.mean(1)
            answered = right(base[kind].astype(np.float32)).astype(float)
            untrained[i] = answered.mean()
            goal = 0.0 if self.absolute else answered + share * (outcomes["grpo"][-1] - answered)
            over_items[i] = np.cov(np.concatenate([outcomes["sft"], outcomes["grpo"]]) - goal) / items
        spreads = {}
        for arm in ARMS:
            found = spread_of_seeds(accuracy[arm], np.full(k, float(items)))
            spreads[arm] = replace(found, between=np.maximum(found.between - twice[arm], 0.0))
        return self.against(spreads, untrained, over_items)

    def simulate(self, rng: np.random.Generator, n: int) -> Differences:
        """The data of n studies."""
        return self.with_outcomes(rng, n) if self.spec["outcomes"] else self.these_items(rng, n)


def holds(low: Array, high: Array, truth: float) -> NDArray[np.bool_]:
    """Whether an interval holds the truth; an infinite truth is held by an interval that is open on its side."""
    if np.isnan(truth):  # neither arm reaches the target: nothing may be claimed
        return np.isneginf(low) & np.isposinf(high)
    return np.asarray((low <= truth) & (truth <= high))


def spread_of(estimates: Array) -> float:
    """The width that holds the middle 95 % of estimates, which no interval of this level can undercut; NaN if open."""
    if not np.isfinite(estimates).all():
        return np.nan
    low, high = np.quantile(estimates, [0.025, 0.975])
    return float(high - low)


def coverage_of(case: Case, n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Coverage, widths and false claims of one case in n simulated studies."""
    data, limits = case.simulate(rng, n), limits_around(np.full(n, case.target), None, None)
    arms: dict[str, CurveEstimates] = {a: estimate_curve(data.take(i), limits) for i, a in enumerate(ARMS)}
    believed = {a: believes_hill(arms[a]) for a in ARMS}
    both = believes_hill(*arms.values())
    ratios = {
        "hill": hill_ratio(data, limits, *arms.values()),
        "monotone": monotone_ratio(arms["sft"], arms["grpo"]),
    }
    quantities: dict[str, dict[str, tuple[Array, Array]]] = {}
    for arm in ARMS:
        hill, monotone = arms[arm].hill, arms[arm].monotone
        assert hill is not None
        quantities[arm] = {"hill": (hill.low, hill.high), "monotone": (monotone.low, monotone.high)}
    estimates = {arm: {"hill": arms[arm].hill.size, "monotone": arms[arm].monotone.size} for arm in ARMS}  # type: ignore[union-attr]
    estimates["ratio"] = {name: r.estimate for name, r in ratios.items()}
    quantities["ratio"] = {name: (r.low, r.high) for name, r in ratios.items()}
    out: dict[str, Any] = {"name": case.name, "n": n}
    for name, by_estimator in quantities.items():
        use = both if name == "ratio" else believed[name]
        truth = case.ratio if name == "ratio" else case.truth[name]
        low, high = (np.where(use, *(by_estimator[e][i] for e in ("hill", "monotone"))) for i in (0, 1))
        by_estimator["default"] = (low, high)
        centre = np.where(use, *(estimates[name][e] for e in ("hill", "monotone")))
        out[f"{name} ideal"] = spread_of(centre)
        for estimator, (lo, hi) in by_estimator.items():
            width = np.where(np.isinf(lo) | np.isinf(hi), np.inf, hi - np.where(np.isinf(lo), 0, lo))
            out[f"{name} {estimator}"] = (float(np.mean(holds(lo, hi, truth))), float(np.median(width)))
        out[f"{name} believed"] = float(np.mean(use))
    out["excludes 1"] = float(np.mean((low > 0) | (high < 0)))
    out["claims 10"] = float(np.mean(low >= 1))
    out["truth"] = (case.truth["sft"], case.truth["grpo"], round(case.ratio, 4))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int)
    parser.add_argument("--seed", type=int, help="of the simulated studies, for a confirmation with others")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--details", action="store_true", help="both estimators and the time, as JSON after each row")
    arguments = parser.parse_args()
    grid = tomllib.loads(GRID.read_text())
    n = arguments.simulations or grid["simulations"]
    seed = grid["seed"] if arguments.seed is None else arguments.seed
    print(f"{n} simulations a case; 95 % intervals. {LEGEND}\n")
    print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
    broken = []
    for index, raw in enumerate(grid["cases"]):
        case = Case(raw, grid["defaults"])
        if arguments.case not in case.name:
            continue
        began = time.process_time()
        found = coverage_of(case, n, np.random.default_rng([seed, index]))
        print("| " + " | ".join(row(found)) + " |", flush=True)
        broken += demands(found)
        if arguments.details:
            print(json.dumps({**found, "seconds": round(time.process_time() - began, 1)}, default=str), flush=True)
    print("\n" + ("\n".join(broken) if broken else "All cases meet the demands."))
    sys.exit(1 if broken else 0)


def row(found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    cells = [found["name"]]
    for name in ("sft", "grpo", "ratio"):
        coverage, width = found[f"{name} default"]
        error = 100 * np.sqrt(coverage * (1 - coverage) / found["n"])
        wide = "open" if np.isinf(width) else f"{width:.2f}"
        ideal = found[f"{name} ideal"]
        times = "" if np.isnan(ideal) or np.isinf(width) else f", {width / ideal:.2f}×"
        cells.append(f"{100 * coverage:.1f} ± {error:.1f} ({wide}{times}; {100 * found[f'{name} believed']:.0f})")
    cells.append(f"{100 * found['claims 10']:.1f}" if found["truth"][2] == 0 else "")
    return cells


def demands(found: dict[str, Any]) -> list[str]:
    """What a case misses: coverage of at least 93 %, false claims of at most 2.5 %."""
    missed = [
        f"{found['name']}: the interval of {name} covers {100 * found[f'{name} default'][0]:.1f} %"
        for name in ("sft", "grpo", "ratio")
        if found[f"{name} default"][0] < 0.93
    ]
    if found["truth"][2] == 0 and found["claims 10"] > 0.025:
        missed.append(f"{found['name']}: {100 * found['claims 10']:.1f} % false claims")
    return missed


if __name__ == "__main__":
    main()
