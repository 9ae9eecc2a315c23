"""All contrasts of a verdict, their errors together, and the paragraph that says what they allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capacity.errors import SpecError
from capacity_analysis.evaluations.evaluation import NOT_KNOWN
from capacity_analysis.statistics.multiplicity import holm
from capacity_analysis.verdict.arms import TaskArms
from capacity_analysis.verdict.contrast import Contrast, contrast


@dataclass(frozen=True)
class ArmsVerdict:
    """What the answers of two arms or more allow to say.

    Attributes:
        tasks: what was answered.
        contrasts: of every other arm with the first, task by task.
        alpha: the chance of any false "better" or "worse" among all contrasts, at most.
        margin: the largest difference that counts as none, as a share of 1; None if equivalence was not asked.
        remarks: what is not known, a sentence each.
        seed_spread: the standard deviation of the accuracy from seed to seed, as a person stated it for arms with
            one run. None if it was not stated.
    """

    tasks: tuple[TaskArms, ...]
    contrasts: tuple[Contrast, ...]
    alpha: float
    margin: float | None
    remarks: tuple[str, ...]
    seed_spread: float | None = None

    @property
    def paragraph(self) -> str:
        """The verdict in sentences, for a pull request."""
        return " ".join([*map(self._sentence, self.contrasts), *self.remarks])

    def _sentence(self, c: Contrast) -> str:
        at = f"On {c.task}, " if c.task else ""
        low, high = c.estimate.low, c.estimate.high
        ends = "" if low is None or high is None else f", {100 * low:+.1f} to {100 * high:+.1f}"
        size = f"{100 * c.estimate.value:+.1f} points ({100 * (1 - self.alpha):g} % interval{ends}; {_test(c)})"
        first = {
            "better": f"{at}{c.second} is better than {c.first} by",
            "worse": f"{at}{c.second} is worse than {c.first} by",
            "equivalent": f"{at}{c.second} and {c.first} are equivalent within {100 * (self.margin or 0):g} points:",
            "not told apart": f"{at}{c.second} and {c.first} cannot be told apart:",
        }[c.finding]
        text = f"{first} {size}."
        if c.finding == "not told apart" and c.detectable is not None:
            text += f" A true difference below {100 * c.detectable:.1f} points would mostly have gone unseen."
        return text


def arms_verdict(
    tasks: Sequence[TaskArms],
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    seed_spread: float | None = None,
    partly: Sequence[str] = (),
) -> ArmsVerdict:
    """Compares every arm with the first one.

    Args:
        tasks: of `capacity_analysis.verdict.arms.by_task`.
        alpha: the chance of any false "better" or "worse", at most.
        margin: the largest difference that counts as none, as a share of 1.
        seed_spread: the standard deviation of the accuracy from seed to seed, for arms with one run.
        partly: names of tasks that not all arms answered. They are not among `tasks`, and a remark says so.

    Raises:
        SpecError: numbers that make no sense.
    """
    if not 0 < alpha < 0.5:
        raise SpecError(f"alpha {alpha:g}: must lie between 0 and 0.5, such as 0.05")
    if margin is not None and not 0 < margin < 1:
        raise SpecError(f"margin {margin:g}: a share of 1 is needed, such as 0.02 for two points")
    if seed_spread is not None and not 0 < seed_spread < 0.5:
        raise SpecError(f"seed spread {seed_spread:g}: a share of 1 is needed, such as 0.008 for 0.8 points")
    made = [
        contrast(task, task.arms[0], other, alpha=alpha, margin=margin, seed_spread=seed_spread)
        for task in tasks
        for other in task.arms[1:]
    ]
    if seed_spread is not None and all(c.pairing != "items, seeds as stated" for c in made):
        raise SpecError("the seed spread is for two arms with one run each, and no comparison is of two such arms")
    adjusted = holm([c.p for c in made])
    decided = [c.decided(p, alpha, margin) for c, p in zip(made, adjusted, strict=True)]
    return ArmsVerdict(
        tuple(tasks), tuple(decided), alpha, margin, tuple(_remarks(tasks, decided, seed_spread, partly)), seed_spread
    )


def _test(c: Contrast) -> str:
    adjusted = "" if c.adjusted_p == c.p else f", {_p(c.adjusted_p)} with all comparisons"
    if c.lost is not None:
        test = "" if c.pairing == "items, seeds as stated" else "exact McNemar "
        return f"{c.gained} items gained, {c.lost} lost, {test}{_p(c.p)}{adjusted}"
    groups = "" if c.clusters is None else f", {c.clusters:,} clusters"
    seeds = f", {c.estimate.seeds} seeds" if c.estimate.seeds > 1 else ""
    return f"{_p(c.p)}{adjusted}{seeds}{groups}"


def _p(p: float) -> str:
    return "p below 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _remarks(
    tasks: Sequence[TaskArms], contrasts: Sequence[Contrast], seed_spread: float | None, partly: Sequence[str]
) -> Iterator[str]:
    items = {task.task: len(task.items) for task in tasks}
    yield "Items: " + ", ".join(f"{count:,}{f' of {task}' if task else ''}" for task, count in items.items()) + "."
    if any(c.pairing == "items, seeds as stated" for c in contrasts):
        yield f"Arms with one run: seeds are taken to scatter by {100 * (seed_spread or 0):g} points, as was stated."
    elif any(len(arm.scores) == 1 for task in tasks for arm in task.arms):
        yield (
            "Arms with one run: what another seed would give is not known, so the claim is about these models and not "
            "about the methods."
        )
    if any(c.pairing == "items" and c.estimate.seeds > 1 for c in contrasts):
        yield "Seeds are not paired between arms."
    for c in contrasts:
        if c.left_out:
            of = f" on {c.task}" if c.task else ""
            yield f"{c.second} against {c.first}{of}: {c.left_out} runs whose seed the other arm lacks are left out."
    if partly:
        yield f"Left out, because not all arms answered them: {', '.join(partly)}."
    for task in tasks:
        if task.left_out:
            yield f"{task.left_out:,} items that some arm did not answer are left out."
        if not task.contents_known:
            yield "Items are paired by name: not all sources say what they asked."
    if any(NOT_KNOWN in arm.models for task in tasks for arm in task.arms):
        yield "What model answered is not known of all sources."
