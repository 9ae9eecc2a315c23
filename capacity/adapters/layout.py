"""What a run decides about a TinyLoRA before it trains: the entries of each group, and which P each entry goes with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A layout completes the spec of a TinyLoRA. Other kinds of adapter have nothing to complete.

    Attributes:
        entries: how many entries of θ each group has; None if every group has u.
        candidates: for each entry of θ, the number of its P among the candidates; None if P is the random one.
    """

    entries: tuple[int, ...] | None = None
    candidates: tuple[int, ...] | None = None


EVEN = Layout()
