"""One arm against another on one task: the paired difference, its tests, and what the design could have shown.

Seeds and items are crossed, see `capacity_analysis.statistics.crossed`. Arms with the same named seeds are paired seed
by seed. Arms with other seeds, or with seeds that no source names, share items alone. An arm with one run is a fixed
reference: what another seed would do is not known, and the result says so. Two arms with one run each are then two
models, and nothing is said of their methods, unless a person says how much seeds scatter.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from capacity_analysis.statistics.crossed import Crossed
from capacity_analysis.statistics.detectable import smallest_detectable
from capacity_analysis.statistics.estimate import Estimate, estimate_of
from capacity_analysis.statistics.seed_tests import mcnemar
from capacity_analysis.types import Array
from capacity_analysis.verdict.arms import Arm, TaskArms

Finding = Literal["better", "worse", "equivalent", "not told apart"]
Pairing = Literal["seeds and items", "items", "items, one run each", "items, seeds as stated"]


@dataclass(frozen=True)
class Contrast:
    """accuracy(second) − accuracy(first) on one task.

    Attributes:
        task, first, second: names; `first` is the reference.
        before, after: accuracies of the first and of the second, over the runs that are compared.
        left_out: runs of both that are not compared, because the other arm does not have their seeds.
        estimate: of the difference, with an interval that stands alone.
        pairing: what the answers are paired by.
        lost, gained: items that only the first, and only the second, answered rightly; None unless both have one run of
            one answer an item.
        p: two-sided, of "no difference": McNemar's exact one if `lost` is counted and no scatter of seeds is stated,
            else that of the interval.
        adjusted_p: with all contrasts of the verdict together (Holm).
        equivalence: the interval that must lie within the margin for "equivalent"; None without a margin.
        detectable: the smallest true difference that four of five such studies tell from 0; None if not known.
        clusters: of items; None if every item stands alone.
        finding: what may be said.
    """

    task: str
    first: str
    second: str
    before: float
    after: float
    left_out: int
    estimate: Estimate
    pairing: Pairing
    lost: int | None
    gained: int | None
    p: float
    adjusted_p: float
    equivalence: Estimate | None
    detectable: float | None
    clusters: int | None
    finding: Finding

    def decided(self, adjusted_p: float, alpha: float, margin: float | None) -> "Contrast":
        """The same with its adjusted p, and what it allows to say."""
        finding: Finding = "not told apart"
        within = self.equivalence
        if adjusted_p <= alpha:
            finding = "better" if self.estimate.value > 0 else "worse"
        elif within is not None and margin is not None and within.low is not None and within.high is not None:
            finding = "equivalent" if -margin < within.low and within.high < margin else finding
        return replace(self, adjusted_p=adjusted_p, finding=finding)


def contrast(
    task: TaskArms,
    first: Arm,
    second: Arm,
    *,
    alpha: float,
    margin: float | None,
    seed_spread: float | None = None,
) -> Contrast:
    """Compares two arms.

    Args:
        task: what both answered.
        first, second: the reference and the other arm.
        alpha: two-sided error of the interval.
        margin: the largest difference that counts as none, as a share of 1; None: equivalence is not asked.
        seed_spread: the standard deviation of the accuracy from seed to seed, as a share of 1, which is added where
            both arms have one run. None: such arms are taken as they are.
    """
    was_shares, now_shares = _compared(first, second)
    mean, crossed, seeds, pairing = _crossed(task, first, second)
    if seed_spread is not None and pairing == "items, one run each":
        # Each run has a seed of its own, so the variances add up. They are stated, so they take no degrees of freedom.
        crossed = replace(crossed, items=crossed.items + 2 * seed_spread**2)
        pairing = "items, seeds as stated"
    count = crossed.item_df + 1
    estimate = estimate_of(mean, crossed, seeds, count, 1 - alpha)
    lost = gained = None
    p = crossed.p_value(mean)
    if first.binary and second.binary and len(first.scores) == len(second.scores) == 1 and task.clusters is None:
        was, now = first.scores[0] > 0.5, second.scores[0] > 0.5
        lost, gained = int((was & ~now).sum()), int((~was & now).sum())
        p = p if pairing == "items, seeds as stated" else mcnemar(lost, gained)
    return Contrast(
        task=task.task,
        first=first.name,
        second=second.name,
        before=float(was_shares.mean()),
        after=float(now_shares.mean()),
        left_out=len(first.scores) - len(was_shares) + len(second.scores) - len(now_shares),
        estimate=estimate,
        pairing=pairing,
        lost=lost,
        gained=gained,
        p=p,
        adjusted_p=p,
        equivalence=None if margin is None else estimate_of(mean, crossed, seeds, count, 1 - 2 * alpha),
        detectable=smallest_detectable(estimate, one_seed=True),
        clusters=None if task.clusters is None else count,
        finding="not told apart",
    )


def _common(first: Arm, second: Arm) -> list[int]:
    """The seeds by which two arms are paired; none if they are not."""
    common = [seed for seed in first.seeds if seed is not None and seed in second.seeds]
    return common if len(common) > 1 or len(first.seeds) == len(second.seeds) == 1 else []


def _compared(first: Arm, second: Arm) -> tuple[Array, Array]:
    """The scores of both arms that are compared, seeds × items each: those of common seeds, if they are paired."""
    common = _common(first, second)
    if not common:
        return first.scores, second.scores
    one, two = (arm.scores[[arm.seeds.index(seed) for seed in common]] for arm in (first, second))
    return one, two


def _crossed(task: TaskArms, first: Arm, second: Arm) -> tuple[float, Crossed, int, Pairing]:
    """The mean difference, its mean squares, how many seeds it is over, and the pairing."""
    one, two = first, second
    common = _common(first, second)
    if common:
        theirs, ours = _compared(first, second)
        table = ours - theirs
        pairing: Pairing = "seeds and items" if len(common) > 1 else "items, one run each"
        return float(table.mean()), Crossed.of(clustered(table, task.clusters)), len(common), pairing
    if min(len(one.scores), len(two.scores)) > 1:
        ours, theirs = (clustered(arm.scores, task.clusters) for arm in (two, one))
        seeds = min(len(one.scores), len(two.scores))
        return float(two.scores.mean() - one.scores.mean()), Crossed.of_two(ours, theirs), seeds, "items"
    table = two.scores - one.scores  # one of them has one row, which is a fixed reference
    pairing = "items, one run each" if len(table) == 1 else "items"
    return float(table.mean()), Crossed.of(clustered(table, task.clusters)), len(table), pairing


def clustered(table: Array, clusters: Array | None) -> Array:
    """A table whose columns are clusters instead of items, with the same mean in each row.

    The column of a cluster is the mean of the table, plus the sum of the cluster's deviations from it, scaled by
    clusters over items. This is the linearised mean of unequal clusters (Cochran, "Sampling Techniques", 1977, 9A).

    Args:
        table: S × I.
        clusters: the number of the cluster of each item, (I,); None: every item stands alone.
    """
    if clusters is None:
        return table
    numbers = clusters.astype(int)
    count, items, mean = int(numbers.max()) + 1, table.shape[1], float(table.mean())
    sums = np.array([np.bincount(numbers, row, count) for row in table - mean])
    return np.asarray(mean + sums * count / items)
