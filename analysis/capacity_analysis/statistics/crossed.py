"""The variance of the mean of a table of seeds × items, when both are drawn anew: a crossed model of random effects.

An entry is y(s, i) = mean + seed(s) + item(i) + rest(s, i). For a paired difference of two arms, the effects that both
arms share have cancelled. What is left of a seed is seed × method, and what is left of an item is item × method.
Answers to one item that share their random numbers, over seeds or over arms, are correlated. Their common part belongs
to the item, and items are drawn anew together with their random numbers.

Tables are balanced, so the analysis of variance has closed forms. They are the REML estimates wherever no component is
negative (Searle, Casella & McCulloch, "Variance Components", 1992, sections 4.2 and 4.7). The residual is counted once.

Each component has the Student quantile of its own degrees of freedom, and the squares add up (Banerjee, Biometrika
1960). Satterthwaite's one number of degrees of freedom is narrower, but covers as little as 92.3 % with three seeds and
88.3 % with two.
A component between seeds that the data hardly show is dropped, by a preliminary F test at a stated level (Bancroft,
Biometrics 1964). Otherwise three seeds would have Student's quantile of 4.3 even where seeds do not differ.
`make contrast-calibration` simulates the coverage of both; docs/commands.md has the table.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy.special import fdtrc, fdtri, stdtrit

from capacity_analysis.types import Array

# The component between seeds is dropped if the p of "seeds do not differ" is larger. Two seeds never say enough.
DROPPED_ABOVE = 0.45
_LEAST_SEED_DF = 2
_LEAST_P = 1e-12
# Variances of several methods are pooled if the p of "they are equal" is larger (Bancroft's level).
POOLED_ABOVE = 0.25


@dataclass(frozen=True)
class Crossed:
    """Mean squares of a table of S seeds × I items, each over S × I: they add up to variances of the mean.

    Attributes:
        seeds: of the seed means. It estimates the variance between seeds over S, plus the residual.
        items: of the item means. It estimates the variance between items over I, plus the residual.
        residual: of what neither explains.
        seed_df, item_df, residual_df: their degrees of freedom; 0 where there is one seed or one item.
        pooled_p: of the test that allowed `seeds` to be pooled over methods; None if it is this table's own.
        keeps_seeds: the component between seeds is never dropped. At the small errors of several looks the preliminary
            test would cost coverage (`make sequential-calibration`).
    """

    seeds: float
    items: float
    residual: float
    seed_df: float
    item_df: int
    residual_df: int
    pooled_p: float | None = None
    keeps_seeds: bool = False

    @classmethod
    def of(cls, table: Array) -> "Crossed":
        """The mean squares of a table, S × I."""
        seeds, items = table.shape
        rows, columns = table.mean(1), table.mean(0)
        rest = table - rows[:, None] - columns + table.mean()
        df = (seeds - 1) * (items - 1)
        return cls(
            seeds=float(rows.var(ddof=1)) / seeds if seeds > 1 else 0.0,
            items=float(columns.var(ddof=1)) / items if items > 1 else 0.0,
            residual=float((rest**2).sum()) / df / (seeds * items) if df else 0.0,
            seed_df=seeds - 1,
            item_df=items - 1,
            residual_df=df,
        )

    @classmethod
    def of_two(cls, first: Array, second: Array) -> "Crossed":
        """Those of a difference of two arms that share items and no seeds, S₁ × I and S₂ × I.

        The variances of both means over seeds add up, with Welch's degrees of freedom (Biometrika 1947).

        Raises:
            ValueError: an arm has fewer than two seeds, or the items differ.
        """
        if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
            raise ValueError(f"answers of shapes {first.shape} and {second.shape} are not of two seeds each")
        one, two = cls.of(first), cls.of(second)
        seeds = one.seeds + two.seeds
        weight = one.seeds**2 / one.seed_df + two.seeds**2 / two.seed_df
        apart = first.mean(0) - second.mean(0)
        return cls(
            seeds=seeds,
            items=float(apart.var(ddof=1)) / len(apart) if len(apart) > 1 else 0.0,
            residual=one.residual + two.residual,
            seed_df=seeds**2 / weight if weight > 0 else one.seed_df + two.seed_df,
            item_df=one.item_df,
            residual_df=one.residual_df + two.residual_df,
        )

    @property
    def seeds_differ_p(self) -> float | None:
        """The p of "seeds do not differ", an F test; None with one seed or one item."""
        if not self.residual_df:
            return None
        if self.residual == 0:
            return 0.0 if self.seeds > 0 else 1.0
        return float(fdtrc(self.seed_df, self.residual_df, self.seeds / self.residual))

    @property
    def dropped(self) -> bool:
        """Whether the component between seeds is dropped."""
        return self.seeds <= self.dropped_below

    @property
    def variance(self) -> float:
        """Of the mean of the table."""
        if self.dropped:
            return max(self.items, self.residual)
        return max(self.seeds + max(self.items - self.residual, 0.0), self.items, self.residual)

    def half_width(self, confidence: float) -> float:
        """Half the width of the two-sided interval of the mean."""
        return float(self.half_widths(np.array([self.seeds]), confidence)[0])

    def half_widths(self, seeds: Array, confidence: float) -> Array:
        """The half-widths of studies that differ from this one in their mean square between seeds alone.

        A component between seeds never makes an interval narrower than it would be without.
        """
        quantile = 0.5 + confidence / 2
        of_items = _squared_quantile(self.item_df, quantile)
        floor = max(self.items * of_items, self.residual * _squared_quantile(self.residual_df, quantile))
        of_seeds = seeds * _squared_quantile(self.seed_df, quantile)
        squared = np.maximum(of_seeds + max(self.items - self.residual, 0.0) * of_items, floor)
        return np.asarray(np.sqrt(np.where(seeds <= self.dropped_below, floor, squared)))

    def p_value(self, mean: float) -> float:
        """The two-sided p of "the mean is 0": the largest error at which the interval still excludes 0."""
        if not self.item_df and not self.seed_df:
            return 1.0  # one answer shows nothing, however large
        if self.half_width(1 - _LEAST_P) <= abs(mean):
            return _LEAST_P if mean else 1.0
        return float(optimize.brentq(lambda p: self.half_width(1 - p) - abs(mean), _LEAST_P, 1.0))

    @property
    def dropped_below(self) -> float:
        """The mean square between seeds up to which their component is dropped."""
        if self.keeps_seeds or self.seed_df < _LEAST_SEED_DF or not self.residual_df:
            return 0.0
        return self.residual * float(fdtri(self.seed_df, self.residual_df, 1 - DROPPED_ABOVE))

    def with_seeds(self, seeds: int, instead_of: int) -> "Crossed":
        """The mean squares that a study of the same items, but with `seeds` seeds, is expected to have."""
        ratio = instead_of / seeds
        residual = self.residual * ratio
        return replace(
            self,
            seeds=self.seeds * ratio,
            items=residual + max(self.items - self.residual, 0.0),
            residual=residual,
            seed_df=self.seed_df * (seeds - 1) // (instead_of - 1),
            residual_df=(seeds - 1) * self.item_df,
        )

    def pooled(self, over_methods: "SeedVariance") -> "Crossed":
        """The same with the variance between seeds pooled over methods, if a test allows it and it is not smaller.

        A pair of methods whose own variance is the larger one keeps it: pooling would hide that they scatter.
        """
        p = over_methods.equal_p(self)
        if p is None or p <= POOLED_ABOVE or over_methods.mean_square < self.seeds:
            return self
        return replace(self, seeds=over_methods.mean_square, seed_df=over_methods.df, pooled_p=p)


def _squared_quantile(df: float, quantile: float) -> float:
    """That of Student's t; 0 without degrees of freedom, where there is no variance to multiply."""
    return float(stdtrit(df, quantile)) ** 2 if df else 0.0


@dataclass(frozen=True)
class SeedVariance:
    """The variance of seed × method in differences of two of M methods, pooled over the methods of a comparison.

    Attributes:
        mean_square: as `Crossed.seeds`.
        df: (M − 1)(S − 1).
    """

    mean_square: float
    df: int

    @classmethod
    def of(cls, accuracies: Array) -> "SeedVariance | None":
        """From the accuracies of M methods at the same S seeds, M × S; None with fewer than three methods or seeds."""
        methods, seeds = accuracies.shape
        if min(methods, seeds) < 3:
            return None
        rest = accuracies - accuracies.mean(1, keepdims=True) - accuracies.mean(0) + accuracies.mean()
        df = (methods - 1) * (seeds - 1)
        return cls(2 * float((rest**2).sum()) / df / seeds, df)

    def equal_p(self, own: Crossed) -> float | None:
        """The p of "this pair of methods scatters as the other contrasts do", two-sided; None if none scatters.

        The sum of squares splits into that of the pair and that of the M − 2 contrasts at right angles to it. For
        normal effects of equal variance the two are independent, so their ratio has an F distribution exactly.
        """
        rest_df = self.df - own.seed_df
        rest = (self.mean_square * self.df - own.seeds * own.seed_df) / rest_df
        if rest <= 0:
            return None if own.seeds <= 0 else 0.0
        upper = float(fdtrc(own.seed_df, rest_df, own.seeds / rest))
        return 2 * min(upper, 1 - upper)
