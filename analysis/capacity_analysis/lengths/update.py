"""Description lengths of an update, and what they promise about unseen prompts."""

import math
from dataclasses import dataclass

from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.quantities import Facts, Found, Quantity

DELTA = 0.05  # probability that the generalisation bound fails
QUANTITIES = (
    Quantity("payload_bits", "update: payload", "bits", "update"),
    Quantity("header_bits", "update: header", "bits", "update"),
    Quantity("selection_bits", "update: choice of the learning rate", "bits", "update"),
    Quantity("two_part_bits", "update, two-part: all three", "bits", "update"),
    Quantity("gap_payload", "generalisation bound, recipe known", "accuracy", "update"),
    Quantity("gap_two_part", "generalisation bound, two-part", "accuracy", "update"),
)  # fmt: skip


@dataclass(frozen=True)
class TwoPart:
    """Bits of an update as it is stored.

    Attributes:
        payload: its numbers.
        header: everything else in its file.
        selection: log₂ of the number of configurations (learning rates, say) among which this one was chosen.
    """

    payload: float
    header: float
    selection: float

    @property
    def total(self) -> float:
        """Payload, header and selection together."""
        return self.payload + self.header + self.selection


def two_part_bits(payload_bytes: float, header_bytes: float, configurations: int) -> TwoPart:
    """The two-part code of an update (Rissanen 1978).

    Raises:
        ValueError: fewer than one configuration.
    """
    if configurations < 1:
        raise ValueError("at least one configuration was tried")
    return TwoPart(8.0 * payload_bytes, 8.0 * header_bytes, math.log2(configurations))


def generalisation_gap(bits: float, examples: int, delta: float = DELTA) -> float:
    """√((K ln 2 + ln 1/δ)/2n): with probability 1 − δ no update of K bits scores further above its true accuracy.

    Occam's bound (Blumer et al. 1987; Hoeffding and a union over all updates of K bits), for accuracies of 0 to 1 on
    n independent prompts that were trained on. A value of 1 or more says nothing.

    Raises:
        ValueError: no example, or a δ outside (0, 1).
    """
    if examples < 1 or not 0 < delta < 1:
        raise ValueError("the bound needs an example and a δ between 0 and 1")
    return math.sqrt((bits * math.log(2) + math.log(1 / delta)) / (2 * examples))


def measure(facts: Facts) -> dict[str, Found]:
    """The quantities of this module for one run, by their keys."""
    result = facts.run.result
    found: dict[str, Found] = dict.fromkeys((q.key for q in QUANTITIES), facts.configurations)
    found |= {"payload_bits": 8.0 * result.update_bytes, "header_bits": 8.0 * result.header_bytes}
    if isinstance(facts.configurations, Absent):
        return found
    parts = two_part_bits(result.update_bytes, result.header_bytes, facts.configurations)
    found |= {"selection_bits": parts.selection, "two_part_bits": parts.total}
    if isinstance(facts.train_items, Absent):
        return found | dict.fromkeys(("gap_payload", "gap_two_part"), facts.train_items)
    if not result.prompts:
        reason = Absent("it is not recorded how many prompts the run trained on")
        return found | dict.fromkeys(("gap_payload", "gap_two_part"), reason)
    examples = min(result.prompts, facts.train_items)
    return found | {
        "gap_payload": generalisation_gap(parts.payload + parts.selection, examples),
        "gap_two_part": generalisation_gap(parts.total, examples),
    }
