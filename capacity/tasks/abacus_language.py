"""The language of the abacus test bed: what its problems and its answers look like, and with which odds.

A problem is the sum of four two-digit numbers, "12+34+56+78=". It is answered in one of three styles:

    terse     #180
    stepwise  first 34=46 then 56=102 finally 78#180
    wordy     first then finally #180

A small model adds four numbers in one go with errors, so terse and wordy answers are often wrong by nature; stepwise
answers restate each next addend and the running sum, and are right. Each of the three words of an answer is drawn
from eight synonyms with geometric odds; which synonym is drawn carries no information about the sum.
"""

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
OPENINGS = ("first ", "so ", "well ", "now ", "begin ", "look ", "start ", "take ")
JOINTS = (" then ", " next ", " and ", " after ", " now ", " on ", " again ", " plus ")
CLOSINGS = (" finally ", " thus ", " hence ", " last ", " so ", " end ", " lastly ", " total ")
SLOTS = (OPENINGS, JOINTS, CLOSINGS)
VOCABULARY: tuple[str, ...] = (PAD, BOS, EOS, *"0123456789", "+", "=", "#", *OPENINGS, *JOINTS, *CLOSINGS)

Style = Literal["terse", "stepwise", "wordy"]
STYLES: tuple[Style, ...] = ("terse", "stepwise", "wordy")

# Odds of the eight synonyms of a slot, most frequent first: 2^(-i/2), normalised.
_WEIGHTS = 0.5 ** (np.arange(8) / 2)
SYNONYM_ODDS: NDArray[np.float64] = _WEIGHTS / _WEIGHTS.sum()
# Another hand prefers the same synonyms in the opposite order: the same entropy, other words.
OTHER_HAND_ODDS: NDArray[np.float64] = SYNONYM_ODDS[::-1].copy()

_ANSWER = re.compile(r"#(\d+)\Z")


def prompt(operands: tuple[int, ...]) -> str:
    """The problem as text: "12+34+56+78="."""
    return "+".join(map(str, operands)) + "="


def operands_of(text: str) -> tuple[int, ...]:
    """The operands of a prompt that `prompt` made."""
    return tuple(int(part) for part in text.removesuffix("=").split("+"))


def answer_of(completion: str) -> str | None:
    """The digits after "#" at the very end of a completion, or None."""
    match = _ANSWER.search(completion)
    return match[1] if match else None


def draw_words(odds: NDArray[np.float64], rng: np.random.Generator) -> tuple[str, str, str]:
    """One synonym for each slot, drawn with `odds`."""
    first, second, third = rng.choice(len(odds), size=3, p=odds)
    return OPENINGS[first], JOINTS[second], CLOSINGS[third]


def completion(operands: tuple[int, ...], style: Style, odds: NDArray[np.float64], rng: np.random.Generator) -> str:
    """An answer to the problem in `style`, its words drawn with `odds`. Without the end-of-sequence token."""
    a, b, c, d = operands
    if style == "terse":
        return f"#{a + b + c + d}"
    opening, joint, closing = draw_words(odds, rng)
    if style == "wordy":
        return f"{opening}{joint}{closing}#{a + b + c + d}"
    return f"{opening}{b}={a + b}{joint}{c}={a + b + c}{closing}{d}#{a + b + c + d}"


def style_bits(odds: NDArray[np.float64]) -> float:
    """Entropy in bits of the three words of an answer."""
    return float(-3 * np.sum(odds * np.log2(odds)))


def style_shift(odds: NDArray[np.float64], base_odds: NDArray[np.float64] = SYNONYM_ODDS) -> float:
    """KL divergence in bits of the three words, drawn with `odds`, from the base model's `base_odds`."""
    return float(3 * np.sum(odds * np.log2(odds / base_odds)))
