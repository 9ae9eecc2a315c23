"""Description lengths of an update, and what they promise about unseen prompts."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TwoPart:
    """Bits of an update as it is stored: its numbers, everything else in its file, and the choice among configurations.

    `selection` is log₂ of the number of configurations (learning rates, say) among which this one was chosen.
    """

    payload: float
    header: float
    selection: float

    @property
    def total(self) -> float:
        """All three."""
        return self.payload + self.header + self.selection


def two_part_bits(payload_bytes: float, header_bytes: float, configurations: int) -> TwoPart:
    """The two-part code of an update (Rissanen 1978).

    Raises:
        ValueError: fewer than one configuration.
    """
    if configurations < 1:
        raise ValueError("at least one configuration was tried")
    return TwoPart(8.0 * payload_bytes, 8.0 * header_bytes, math.log2(configurations))


def generalisation_gap(bits: float, examples: int, delta: float = 0.05) -> float:
    """√((K ln 2 + ln 1/δ)/2n): with probability 1 − δ no update of K bits scores further above its true accuracy.

    Occam's bound (Blumer et al. 1987; Hoeffding and a union over all updates of K bits), for accuracies of 0 to 1 on
    n independent prompts that were trained on. A value of 1 or more says nothing.

    Raises:
        ValueError: no example, or a δ outside (0, 1).
    """
    if examples < 1 or not 0 < delta < 1:
        raise ValueError("the bound needs an example and a δ between 0 and 1")
    return math.sqrt((bits * math.log(2) + math.log(1 / delta)) / (2 * examples))
