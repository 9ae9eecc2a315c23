"""Description lengths of demonstrations from the losses along one pass of training, in bits.

A batch is coded by the model as it stands *before* it learns from it, the first by the base model (Blier & Ollivier,
arXiv 1802.07044; Voita & Titov, arXiv 2003.12298). That is a code only while the demonstrations are new: later epochs
code nothing. All lengths are sums over tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surplus:
    """Bits above a loss of ε along the data. `lower_bound`: the last block still lies above ε, so more was to come."""

    bits: float
    epsilon: float
    lower_bound: bool


def prequential_bits(block_bits: Sequence[float]) -> float:
    """Code length of all demonstrations of the first pass: the sum of the blocks' code lengths, each before its update.

    Raises:
        ValueError: no block.
    """
    if not len(block_bits):
        raise ValueError("no block of demonstrations")
    return float(np.sum(block_bits, dtype=np.float64))


def surplus_bits(block_bits: Sequence[float], block_tokens: Sequence[int], epsilon: float) -> Surplus:
    """Σ max(loss − ε, 0) along the data axis: what it costs to reach a loss of ε (Whitney et al., arXiv 2009.07368).

    Args:
        block_bits: code length of each block before its update.
        block_tokens: completion tokens of each block.
        epsilon: the loss to reach, bits a token.
    """
    bits, tokens = np.asarray(block_bits, dtype=np.float64), np.asarray(block_tokens, dtype=np.float64)
    above = bits - epsilon * tokens
    return Surplus(float(np.maximum(above, 0).sum()), epsilon, bool(above[-1] > 0))


def excess_bits(
    prequential: float,
    demonstrations: int,
    heldout_bits: float,
    heldout_demonstrations: int,
    base: tuple[float, float] | None = None,
) -> float:
    """Prequential code length − n × final loss on held-out demonstrations: the bits learnt (arXiv 2601.04728).

    What no model could predict costs as much in both terms and drops out. Not below 0 in expectation and about 0 for
    random labels; a single value may be negative and is returned as it is.

    Args:
        prequential: bits of the first pass.
        demonstrations: n, coded in it.
        heldout_bits: code length of held-out demonstrations of the same distribution under the final model.
        heldout_demonstrations: how many those are.
        base: code lengths of the first pass and of the held-out demonstrations under the untrained base. Their
            difference, 0 in expectation, is subtracted as a control variate: it takes with it that the demonstrations
            of the first pass happen to be longer or harder than the held-out ones.
    """
    if base is not None:
        prequential, heldout_bits = prequential - base[0], heldout_bits - base[1]
    return prequential - demonstrations * heldout_bits / heldout_demonstrations
