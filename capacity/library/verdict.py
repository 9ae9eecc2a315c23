"""Results of other programs against each other: paired differences, and the paragraph that they allow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capacity.errors import unknown
from capacity.library.shown import Shown
from capacity_analysis.evaluations.evaluation import Reading
from capacity_analysis.evaluations.read import read_evaluations
from capacity_analysis.evaluations.table import COLUMNS
from capacity_analysis.verdict.arms import by_task, tasks_of_some
from capacity_analysis.verdict.verdict import ArmsVerdict, arms_verdict
from capacity_reports.blocks import Block
from capacity_reports.sections.verdict import verdict_blocks


@dataclass(frozen=True, repr=False)
class Judged(Shown):
    """Arms that answered the same items, compared.

    Attributes:
        found: the contrasts of every other arm with the first, and what they allow to say.
    """

    found: ArmsVerdict

    @property
    def line(self) -> str:
        """The verdict in sentences, for a pull request."""
        return self.found.paragraph

    @property
    def blocks(self) -> Sequence[Block]:
        """A table of the contrasts, and the paragraph."""
        return verdict_blocks(self.found)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; shares of 1 throughout."""
        return {
            "contrasts": [_row(asdict(c)) for c in self.found.contrasts],
            "alpha": self.found.alpha,
            "margin": self.found.margin,
            "seed_spread": self.found.seed_spread,
            "paragraph": self.found.paragraph,
        }


def verdict(
    *sources: str | Path,
    metric: str | None = None,
    columns: Mapping[str, str] | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    common: bool = False,
    seed_spread: float | None = None,
) -> Judged:
    """Compares arms that answered the same items, whoever trained and evaluated them.

    Args:
        sources: samples files of lm-evaluation-harness, logs of inspect_ai, tables of outcomes, or folders of the first
            two; "NAME=SOURCE" names an arm. The first arm is the reference.
        metric: which of several grades to take.
        columns: of a table, the names of its columns by what they mean: {"item": "question_id"}.
        margin: the largest difference that counts as none, as a share of 1; None: equivalence is not asked.
        alpha: the chance of any false "better" or "worse" among all comparisons, at most.
        common: leave out items that not all arms answered.
        seed_spread: the standard deviation of an arm's accuracy from seed to seed, as a share of 1, known from
            elsewhere. It widens the comparison of two arms with one run each, so that it is one of methods.

    Raises:
        SpecError: something has to be chosen, or numbers that make no sense.
        DataError: a source that is not whole, or answers that cannot be paired.
    """
    reading = reading_of(metric, columns)
    found = [e for source in sources for e in read_evaluations(*named_source(source), reading)]
    tasks, partly = by_task(found, common=common), tasks_of_some(found)
    return Judged(arms_verdict(tasks, alpha=alpha, margin=margin, seed_spread=seed_spread, partly=partly))


def reading_of(metric: str | None, columns: Mapping[str, str] | None) -> Reading:
    """What a person says of how to read sources.

    Args:
        metric: which of several grades to take.
        columns: of a table, the names of its columns by what they mean.

    Raises:
        SpecError: no such column.
    """
    named = dict(columns or {})
    for column in named:
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS)
    return Reading(metric, tuple(named.items()))


def named_source(source: str | Path) -> tuple[Path, str | None]:
    """The path of a source, and the name of its arm if "NAME=" stands before it."""
    name, equals, path = str(source).partition("=")
    if not equals or Path(source).exists():
        return Path(source), None
    return Path(path), name


def _row(contrast: dict[str, Any]) -> dict[str, Any]:
    """A contrast whose intervals are low and high ends."""
    estimate, equivalence = contrast.pop("estimate"), contrast.pop("equivalence")
    return {
        **contrast,
        "difference": estimate["value"],
        "low": estimate["low"],
        "high": estimate["high"],
        "seeds": estimate["seeds"],
        "equivalence_low": None if equivalence is None else equivalence["low"],
        "equivalence_high": None if equivalence is None else equivalence["high"],
    }
