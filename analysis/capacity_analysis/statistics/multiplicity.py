"""Several tests at once."""

from collections.abc import Callable, Sequence


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values: comparing them with a level keeps the chance of any false claim at or below that level.

    Holm, Scandinavian Journal of Statistics 1979. It holds however the tests hang together.
    """
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    adjusted = [1.0] * len(ps)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def holm_claims(claims: Sequence[Callable[[float], bool]], alpha: float = 0.05) -> list[bool]:
    """Which claims may be made together, where a claim has an interval for every error but no p-value.

    The chance of any false claim is at most `alpha`. These are Holm's steps: every claim is tested at `alpha` over the
    number of claims that do not stand yet, until no further one stands.

    Args:
        claims: each tells whether it may be made alone, with at most that error.
        alpha: the error of all together.
    """
    stand = [False] * len(claims)
    while True:
        level = alpha / max(stand.count(False), 1)
        found = [known or claim(level) for known, claim in zip(stand, claims, strict=True)]
        if found == stand:
            return stand
        stand = found
