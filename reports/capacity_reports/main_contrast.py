"""The main contrast of a study: the pair of methods that the first screen speaks of, and what the data decide of it.

A study has many pairs at many sizes. Of twenty pairs that do not differ, one seems to. So the pair is fixed by what was
asked, never by what was found: grpo and sft wherever both were trained. Its statements are judged together (Holm), the
ratios of sizes as one family and the differences of accuracies as another. All other pairs are exploratory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from capacity_analysis.statistics.multiplicity import holm_claims
from capacity_reports.decided import (
    AskedDifference,
    AskedRatio,
    decided_together,
    decides,
    differences_of,
    interest,
    ratios_of,
)
from capacity_reports.figures import joined
from capacity_reports.views import Analysis

ERROR = 0.05  # the chance of any false claim in a family, at most


@dataclass(frozen=True)
class MainContrast:
    """What is asked and what is decided of one pair of methods.

    Attributes:
        methods: the pair; None if no two cells are compared.
        ratios, differences: what is asked of it, at all sizes and on all models. Differences have an interval.
        decided_ratios, decided_differences: those that are decided together, the largest difference first.
    """

    methods: tuple[str, str] | None
    ratios: tuple[AskedRatio, ...]
    differences: tuple[AskedDifference, ...]
    decided_ratios: tuple[AskedRatio, ...]
    decided_differences: tuple[AskedDifference, ...]

    @property
    def open_ratios(self) -> list[AskedRatio]:
        """The ratios that are not decided."""
        decided = set(map(id, self.decided_ratios))
        return [asked for asked in self.ratios if id(asked) not in decided]

    @property
    def decided_alone(self) -> list[AskedRatio]:
        """The ratios whose interval excludes 1 by itself, but not together with the others."""
        return [r for r in self.open_ratios if decides(r.ratio) and not r.study.of_one_seed(r.ratio)]

    @property
    def open_differences(self) -> list[AskedDifference]:
        """The differences that are not decided."""
        decided = set(map(id, self.decided_differences))
        return [asked for asked in self.differences if id(asked) not in decided]

    @property
    def name(self) -> str:
        """ "grpo and sft", or "curves of grpo" where one method is compared with itself."""
        if self.methods is None:
            return "methods"
        return joined(self.methods) if len(set(self.methods)) > 1 else f"cells of {self.methods[0]}"

    @property
    def judged(self) -> str:
        """What was done about several statements, in sentences; "" if nothing is asked."""
        if self.methods is None:
            return ""
        families = [(len(self.ratios), "ratios of sizes"), (len(self.differences), "differences")]
        among = [f"among the {count:,} {what}" for count, what in families if count > 1]
        error = f" The chance of any false claim {joined(among)} is at most {100 * ERROR:g} % (Holm)." if among else ""
        return (
            f"The main contrast, {self.name}, was fixed before the results.{error} Each printed interval stands alone. "
            "Other pairs are exploratory."
        )


def main_contrast(analysis: Analysis) -> MainContrast:
    """The main contrast of a source, judged."""
    ratios = _once(list(ratios_of(analysis)))
    differences = [d for d in differences_of(analysis) if d.difference.estimate.over is not None]
    asked = [r.methods for r in ratios] + [d.methods for d in differences]
    if not asked:
        return MainContrast(None, (), (), (), ())
    first, second = min(map(sorted, asked), key=lambda pair: (*interest(*pair), pair))
    own_ratios = [r for r in ratios if sorted(r.methods) == [first, second]]
    own_differences = [d for d in differences if sorted(d.methods) == [first, second]]
    largest = sorted(_decided_differences(own_differences), key=lambda d: -abs(d.difference.estimate.value))
    return MainContrast(
        (first, second), tuple(own_ratios), tuple(own_differences), tuple(_decided_ratios(own_ratios)), tuple(largest)
    )


def _once(ratios: Sequence[AskedRatio]) -> list[AskedRatio]:
    """Each ratio once: methods without demonstrations stand in the rows of every kind of demonstrations."""
    found: list[AskedRatio] = []
    for asked in ratios:
        if all(asked.ratio != other.ratio for other in found):
            found.append(asked)
    return found


def _decided_ratios(asked: Sequence[AskedRatio]) -> list[AskedRatio]:
    stand = decided_together([(one.study, one.ratio) for one in asked])
    return [one for one, stands in zip(asked, stand, strict=True) if stands]


def _decided_differences(asked: Sequence[AskedDifference]) -> list[AskedDifference]:
    stand = holm_claims([partial(_excludes_zero, one) for one in asked], ERROR)
    return [one for one, stands in zip(asked, stand, strict=True) if stands]


def _excludes_zero(asked: AskedDifference, error: float) -> bool:
    estimate = asked.difference.estimate
    return estimate.seeds > 1 and estimate.excludes_zero(1 - error)
