"""Divides the accuracy of a perfect model: base, learned by the method, missed by it, and not expressible."""

from dataclasses import dataclass

from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, difference_estimate
from capacity_analysis.types import Array


@dataclass(frozen=True)
class Shares:
    """Four shares that add up to 1. Each has an interval of its own for fresh seeds and items.

    Attributes:
        base: the accuracy of the untrained model.
        learned: what the method added.
        missed: what a search for the best update found beyond that. It is negative if the search found less.
        not_expressible: what no update found by the search reaches. It is an upper bound, because a search may miss the
            best update.
    """

    base: Estimate
    learned: Estimate
    missed: Estimate
    not_expressible: Estimate


def shares_of(base: Array, trained: Array, best: Array) -> Shares:
    """Returns the four shares from answers to the same items.

    Args:
        base, trained, best: shares of correct samples of the untrained model, the trained update and the best update
            that was found, seeds × items.
    """
    return Shares(
        accuracy_estimate(base),
        difference_estimate(trained, base),
        difference_estimate(best, trained),
        accuracy_estimate(1 - best),
    )


@dataclass(frozen=True)
class Reach:
    """Three shares that add up to 1, for an update that no method trained.

    Attributes:
        base: the accuracy of the untrained model.
        gained: what the best update that a search found adds.
        not_expressible: what no update found by the search reaches. It is an upper bound.
    """

    base: Estimate
    gained: Estimate
    not_expressible: Estimate


def reach_of(base: Array, best: Array) -> Reach:
    """Returns the three shares from answers to the same items.

    Args:
        base, best: shares of correct samples of the untrained model and of the best update, seeds × items.
    """
    return Reach(accuracy_estimate(base), difference_estimate(best, base), accuracy_estimate(1 - best))
