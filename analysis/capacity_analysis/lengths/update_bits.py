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


def bits_back(parameters: int, square_sum: float, noise: float, prior: float | None = None) -> float:
    """Σᵢ KL(N(μᵢ, s²) ‖ N(0, s₀²)) in bits: a posterior of width s needs no more (Hinton & van Camp 1993).

    Per parameter [ln(s₀/s) + (s² + μ²)/(2 s₀²) − ½]/ln 2, which over all parameters depends on Σ μᵢ² only.

    Args:
        parameters: n.
        square_sum: Σ μᵢ², μ the trained update.
        noise: s, the largest noise at which the accuracy holds.
        prior: s₀; the one that makes the sum smallest, s₀² = s² + Σ μᵢ²/n, if None. It is chosen after training: a
            receiver must be told it, 32 bits as a float.

    Raises:
        ValueError: a width that is not positive.
    """
    if noise <= 0 or (prior is not None and prior <= 0):
        raise ValueError("the widths of prior and posterior are positive")
    prior_square = prior**2 if prior is not None else noise**2 + square_sum / parameters
    fixed = 0.5 * math.log(prior_square / noise**2) + noise**2 / (2 * prior_square) - 0.5
    return (parameters * fixed + square_sum / (2 * prior_square)) / math.log(2)


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
