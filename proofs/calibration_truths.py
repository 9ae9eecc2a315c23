"""The simulated truths of calibration_grid.toml: curves, seeds and answers, as many studies of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection, designs
from capacity_analysis.statistics.collapses import collapsed_of_curve
from capacity_analysis.statistics.hill import fit_hill
from capacity_analysis.statistics.spread import Spread, drawn_variance, residual_variance, spread_of_seeds
from capacity_analysis.thresholds.differences import Aim, Differences, differences
from capacity_analysis.thresholds.shared_draws import shared_draw_covariance
from capacity_analysis.types import Array

GRID = Path(__file__).with_name("calibration_grid.toml")
ARMS = ("sft", "grpo")
CLASSES = 8
Places = NDArray[np.intp]


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


@dataclass(frozen=True)
class Studies:
    """What n simulated studies of a case show.

    Attributes:
        accuracy: of each run, n × sizes × seeds for each arm.
        answers: behind an accuracy, n × sizes.
        base: the accuracy of the untrained model, n.
        items: the covariance of the differences from the target over items, n × 2K × 2K, sft first; None without
            outcomes.
        twice: the variance of each mean that is in that covariance and in the spread of seeds, n × K for each arm.
    """

    accuracy: dict[str, Array]
    answers: Array
    base: Array
    items: Array | None
    twice: dict[str, Array]


class Case:
    """One simulated truth of the grid: two arms, a target, and the sizes that reach it."""

    def __init__(self, raw: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.spec = {**defaults, **raw}
        self.deviations: dict[str, Array] = {}
        # The chances of each item of a study that keeps its answers, K × I for an arm; none for other truths.
        self.chances: dict[str, Array] = {}
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
        """The curves of a study, each a Hill curve through its means, with what its runs and answers deviate by."""
        points = read_points(str(GRID.parents[1] / "studies/results" / table))
        rows = points.frame["model"] == model
        wanted = points.where(rows & points.frame["method"].isin([*ARMS, "base"]))
        (design,) = designs(wanted, Selection())
        by_method = {curve.method: curve for curve in design.curves}
        assert design.base is not None
        found: dict[str, Any] = {
            "sizes": [int(size) for size in by_method["sft"].sizes],
            "items": int(wanted.frame.loc[wanted.frame["method"] == "sft", "n_items"].max()),
            "base": float(design.base.accuracy.mean()),
        }
        for arm in ARMS:
            accuracy = by_method[arm].accuracy
            through = fit_hill(by_method[arm].sizes, accuracy.mean(1)).curve
            found[arm] = {"kind": "hill"} | {
                name: getattr(through, name) for name in ("lower", "upper", "midpoint", "slope")
            }
            self.deviations[arm] = accuracy - accuracy.mean(1, keepdims=True)
        if design.base.outcomes is not None:
            curves = {arm: by_method[arm].outcomes for arm in ARMS} | {"base": design.base.outcomes}
            self.chances = {name: own.mean(1) for name, own in curves.items() if own is not None}
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

    def these_items(self, rng: np.random.Generator, n: int) -> Studies:
        """Studies on items that are the same in all of them."""
        means = self.seed_means(rng, n)
        if self.spec["answers"] == "rounded":
            accuracies, answers = self.rounded(rng, means)
            return Studies(accuracies, answers, np.full(n, self.spec["base"]), None, {})
        accuracies, base = self.drawn(rng, means)
        return Studies(accuracies, np.full((n, len(self.log_sizes)), float(self.spec["items"])), base, None, {})

    def drawn(self, rng: np.random.Generator, means: dict[str, Array]) -> tuple[dict[str, Array], Array]:
        """The accuracies of the runs and of the base where runs draw their answers."""
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

        accuracies = {arm: right(means[arm], expected(s[arm], self.log_sizes, 0.0)) / items for arm in ARMS}
        base = np.full(n, s["base"])
        if s["base_runs"] == "one":
            uniforms = rng.random(uniforms[:, :, :1].shape, dtype=np.float32)
        if s["base_runs"] != "exact":
            runs = np.full((n, 1, rows if s["base_runs"] == "shared" else 1), s["base"])
            base = (right(runs, np.array([s["base"]])) / items).mean((1, 2))
        return accuracies, base

    def rounded(self, rng: np.random.Generator, means: dict[str, Array]) -> tuple[dict[str, Array], Array]:
        """The accuracies where each run answers as many items right as its accuracy says, to the nearest whole item.

        Each study has another number of items, or all would be rounded alike.
        """
        items = self.spec["items"]
        count = rng.integers(items, 2 * items, size=(len(means["sft"]), 1)).astype(float)
        answers = np.repeat(count, len(self.log_sizes), axis=1)
        return {arm: np.rint(means[arm] * count[:, :, None]) / count[:, :, None] for arm in ARMS}, answers

    @property
    def share(self) -> float:
        """How far the target moves with the measured ceiling."""
        return 0.0 if self.absolute else float(self.spec["gain"])

    def against(
        self, spreads: dict[str, Spread], base: Array, items: Array | None, seeds: dict[str, Places]
    ) -> Differences:
        """Both arms against the target. `items`: n × 2K × 2K over items, sft first. `seeds`: of each arm."""
        s, k, n = self.spec, len(self.log_sizes), len(base)
        q, top = self.share, spreads["grpo"].mean[:, -1]
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
        aim = Aim(target, q, 2 * k - 1, of_base)
        columns = [tuple(map(int, seeds[arm])) for arm in ARMS]
        return differences([self.log_sizes] * 2, [spreads[arm] for arm in ARMS], columns, aim, items)

    def with_outcomes(self, rng: np.random.Generator, n: int) -> Studies:
        """Studies with the covariance of their outcomes over items.

        The items are drawn anew in every simulation, or the items stay and all runs share one draw.
        """
        s, items, k = self.spec, self.spec["items"], len(self.log_sizes)
        means, share = self.seed_means(rng, n), self.share
        tables = self.chances or {
            "base": class_probabilities(np.array([s["base"]]), s["concentration"]),
            **{a: class_probabilities(expected(s[a], self.log_sizes, 0.0), s["concentration"]) for a in ARMS},
        }
        (base,) = tables["base"]
        accuracy = {a: np.empty(means[a].shape) for a in ARMS}
        twice = {a: np.empty((n, k)) for a in ARMS}
        over_items, untrained = np.empty((n, 2 * k, 2 * k)), np.empty(n)
        same = np.arange(items) % len(base)
        alike = rng.permutation(items) < s["alike"] * items
        for i in range(n):
            kind = same if s["draws"] == "common" else rng.integers(len(base), size=items)
            uniforms = rng.random(items, dtype=np.float32)

            def right(chances: Array, uniforms: Array = uniforms) -> Array:
                own = rng.random(chances.shape, dtype=np.float32)
                drawn = np.where(alike, uniforms, own) if s["draws"] == "common" else own
                return (drawn < chances).astype(np.float32)

            outcomes = {}
            for arm in ARMS:
                table = np.broadcast_to(tables[arm][:, None, :], (*means[arm].shape[1:], len(base)))
                found = right(shifted(table, means[arm][i]).astype(np.float32)[:, :, kind])
                accuracy[arm][i] = found.mean(2)
                twice[arm][i] = [residual_variance(size) for size in found]
                outcomes[arm] = found.mean(1)
            answered = right(base[kind].astype(np.float32)).astype(float)
            untrained[i] = answered.mean()
            goal = 0.0 if self.absolute else answered + share * (outcomes["grpo"][-1] - answered)
            over_items[i] = np.cov(np.concatenate([outcomes["sft"], outcomes["grpo"]]) - goal) / items
        return Studies(accuracy, np.full((n, k), float(items)), untrained, over_items, twice)

    def studies(self, rng: np.random.Generator, n: int) -> Studies:
        """n simulated studies."""
        return self.with_outcomes(rng, n) if self.spec["outcomes"] else self.these_items(rng, n)

    def simulate(self, rng: np.random.Generator, n: int) -> list[Differences]:
        """The data of n simulated studies, in parts of studies that keep the same seeds."""
        return self.differences(self.studies(rng, n))

    def differences(self, studies: Studies) -> list[Differences]:
        """Both arms against the target, in parts of studies that keep the same seeds."""
        answers, base = studies.answers, studies.base
        if studies.items is None:
            return [
                self.against(
                    {a: spread_of_seeds(own, answers[rows]) for a, own in kept.items()}, base[rows], None, seeds
                )
                for rows, seeds, kept in set_aside(studies.accuracy, answers)
            ]
        spreads = {arm: spread_of_seeds(studies.accuracy[arm], answers) for arm in ARMS}
        rest = np.concatenate([np.minimum(studies.twice[arm], spreads[arm].between) for arm in ARMS], axis=1)
        moved = np.eye(rest.shape[1])
        moved[:, -1] -= self.share
        items = studies.items - moved @ (rest[:, :, None] * np.eye(len(moved))) @ moved.T
        return [self.against(spreads, base, items, dict.fromkeys(ARMS, np.arange(self.spec["seeds"])))]


def set_aside(
    accuracies: dict[str, Array], answers: Array
) -> Iterator[tuple[Places, dict[str, Places], dict[str, Array]]]:
    """Yields studies with the seeds that each arm keeps, because the others collapsed, and their accuracies.

    Seeds may be exchanged. So they are put in the order of the arms that keep them. Few patterns are left.
    """
    fallen = np.stack([collapsed_of_curve(accuracies[arm], answers) for arm in ARMS], axis=1)
    order = np.argsort(fallen[:, 0] * 2 + fallen[:, 1], axis=1, kind="stable")[:, None]
    fallen = np.take_along_axis(fallen, order, axis=2)
    ordered = {arm: np.take_along_axis(accuracies[arm], order, axis=2) for arm in ARMS}
    patterns, of_study = np.unique(fallen, axis=0, return_inverse=True)
    for place, pattern in enumerate(patterns):
        rows = np.flatnonzero(of_study.ravel() == place)
        seeds = {arm: np.flatnonzero(~pattern[i]) for i, arm in enumerate(ARMS)}
        yield rows, seeds, {arm: ordered[arm][rows][:, :, seeds[arm]] for arm in ARMS}
