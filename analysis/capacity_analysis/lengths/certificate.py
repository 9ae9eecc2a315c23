"""What a message of a few bits provably gains: a bound for the best of finitely many codes, on items of one source.

A class of 2^b codes is fixed before any item is seen. Each code answers n independent items. By the exact binomial tail
of Clopper and Pearson, each accuracy is above its lower limit at level δ / 2^b, except with probability δ / 2^b. So all
2^b limits hold at once with probability 1 − δ, and that of the code that was chosen for its score holds too.
"""

from dataclasses import dataclass

from scipy.special import betaincinv


@dataclass(frozen=True)
class Certificate:
    """A statement about accuracies on fresh items that holds with probability `level`.

    Attributes:
        bits: b, the length of every code.
        items: n, how many items were asked.
        correct: how many of them the chosen code answered correctly.
        base_correct: how many of them the untrained model answered correctly.
        level: the probability with which both limits hold.
        lower: the accuracy of the chosen code on fresh items is at least this.
        base_upper: the accuracy of the untrained model on fresh items is at most this.
    """

    bits: int
    items: int
    correct: int
    base_correct: int
    level: float
    lower: float
    base_upper: float

    @property
    def certain_gain(self) -> float:
        """Returns the smallest gain that both limits allow. It is negative if no gain is certified."""
        return self.lower - self.base_upper


def certificate(correct: int, base_correct: int, items: int, bits: int, level: float = 0.95) -> Certificate:
    """Returns the bound for the best of 2^bits codes, and for the untrained model, which hold together.

    Args:
        correct: items that the chosen code answered correctly.
        base_correct: items that the untrained model answered correctly.
        items: how many items were asked; each code of the class was to answer all of them.
        bits: the length of every code.
        level: the probability with which both limits hold. Each may fail with half of the rest.

    Raises:
        ValueError: if a count or the level is out of range.
    """
    if not (0 <= correct <= items and 0 <= base_correct <= items and items > 0 and bits >= 0 and 0 < level < 1):
        raise ValueError(f"no certificate of {correct} and {base_correct} of {items} items, {bits} bits, level {level}")
    fails = (1 - level) / 2
    lower = float(betaincinv(correct, items - correct + 1, fails / 2**bits)) if correct else 0.0
    above = items - base_correct
    upper = float(betaincinv(base_correct + 1, above, 1 - fails)) if above else 1.0
    return Certificate(bits, items, correct, base_correct, level, lower, upper)
