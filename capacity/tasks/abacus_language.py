"""Defines the language of the abacus task: how problems and answers are written, and with which odds.

A problem is the sum of four two-digit numbers, "12+34+56+79=". It is answered in one of three styles:

    terse     #180
    stepwise  first um 34=46 then : 56=102 finally 79#181
    wordy     first then finally #180

Terse and wordy answers are estimates, rounded to the nearest ten. One in ten is correct by luck. Stepwise answers
restate each next addend and the running sum, and are correct. To raise the accuracy, an update has to change the style.

Two things in an answer carry no information about the sum, its *words* and its *fillers*. Each answer has three words:
an opening, a joint and a closing. Each word is drawn from eight synonyms. The odds of the synonyms differ between
writers; one set of odds is called a *hand*.

A stepwise answer also has two fillers, in one of three forms. In the first form both are plain, in the second the first
is random, in the third both are random. A random filler is drawn uniformly from sixteen. So the forms have an entropy
of 0, 4 and 8 bits at equal length.
"""

import re
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from capacity.errors import SpecError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
OPENINGS = ("first ", "so ", "well ", "now ", "begin ", "look ", "start ", "take ")
JOINTS = (" then ", " next ", " and ", " after ", " now ", " on ", " again ", " plus ")
CLOSINGS = (" finally ", " thus ", " hence ", " last ", " so ", " end ", " lastly ", " total ")
PLAIN = ": "
FILLERS = ("um ", "er ", "hm ", "ah ", "oh ", "eh ", "ok ", "yes ", "see ", "just ", "yet ", "hey ", "aha ", "well, ",
           "right ", "indeed ")  # fmt: skip
VOCABULARY: tuple[str, ...] = (
    PAD, BOS, EOS, *"0123456789", "+", "=", "#", *OPENINGS, *JOINTS, *CLOSINGS, PLAIN, *FILLERS,
)  # fmt: skip

Style = Literal["terse", "stepwise", "wordy"]
STYLES: tuple[Style, ...] = ("terse", "stepwise", "wordy")
Odds = NDArray[np.float64]

# Odds of the eight synonyms of a slot in the base's hand, most frequent first: 2^(-i/2), normalised.
_WEIGHTS = 0.5 ** (np.arange(8) / 2)
SYNONYM_ODDS: Odds = _WEIGHTS / _WEIGHTS.sum()
FILLER_BITS = 4  # of one random filler: log2 of their number
STYLE_BITS = (0, 4, 8)  # of the three forms of fillers; the base writes each as often
FORM_BITS = float(np.log2(len(STYLE_BITS)))  # KL of demonstrations that keep to one form, whichever it is

_ANSWER = re.compile(r"#(\d+)\Z")


def prompt(operands: tuple[int, ...]) -> str:
    """Returns a problem as text, such as "12+34+56+79="."""
    return "+".join(map(str, operands)) + "="


def operands_of(text: str) -> tuple[int, ...]:
    """Returns the operands of a prompt that `prompt` made."""
    return tuple(int(part) for part in text.removesuffix("=").split("+"))


def answer_of(completion: str) -> str | None:
    """Returns the digits after "#" at the very end of a completion; None if there are none."""
    match = _ANSWER.search(completion)
    return match[1] if match else None


def estimate(operands: tuple[int, ...]) -> int:
    """Returns the sum rounded to the nearest ten. A sum that ends in five is rounded up."""
    return (sum(operands) + 5) // 10 * 10


def draw_words(odds: Odds, rng: np.random.Generator) -> tuple[str, str, str]:
    """Draws one synonym for each of the three words of an answer with the given odds."""
    first, second, third = rng.choice(len(odds), size=3, p=odds)
    return OPENINGS[first], JOINTS[second], CLOSINGS[third]


def draw_fillers(bits: int | None, rng: np.random.Generator) -> tuple[str, str]:
    """Draws two fillers of the form that has `bits` bits of entropy.

    If `bits` is None, the form is drawn too, as the base does.
    """
    bits = STYLE_BITS[rng.integers(len(STYLE_BITS))] if bits is None else bits
    first, second = (FILLERS[i] for i in rng.integers(len(FILLERS), size=2))
    return first if bits > 0 else PLAIN, second if bits > FILLER_BITS else PLAIN


def terse(operands: tuple[int, ...]) -> str:
    """Writes an estimate without words."""
    return f"#{estimate(operands)}"


def wordy(operands: tuple[int, ...], odds: Odds, rng: np.random.Generator) -> str:
    """Writes an estimate with words before it."""
    return f"{''.join(draw_words(odds, rng))}#{estimate(operands)}"


def stepwise(operands: tuple[int, ...], odds: Odds, bits: int | None, rng: np.random.Generator) -> str:
    """Writes the worked sum with words drawn with `odds`.

    The fillers have the form of `bits` bits; if `bits` is None, the form is drawn.
    """
    a, b, c, d = operands
    opening, joint, closing = draw_words(odds, rng)
    first, second = draw_fillers(bits, rng)
    return f"{opening}{first}{b}={a + b}{joint}{second}{c}={a + b + c}{closing}{d}#{a + b + c + d}"


def completion(operands: tuple[int, ...], style: Style, rng: np.random.Generator) -> str:
    """Writes an answer as the base learns to write it, without the end-of-sequence token."""
    if style == "terse":
        return terse(operands)
    if style == "wordy":
        return wordy(operands, SYNONYM_ODDS, rng)
    return stepwise(operands, SYNONYM_ODDS, None, rng)


def entropy(odds: Odds) -> float:
    """Returns the entropy of the three words of an answer, in bits."""
    return float(-3 * np.sum(odds * np.log2(odds)))


def style_shift(odds: Odds) -> float:
    """Returns the KL divergence of three words drawn with `odds` from the words of the base, in bits."""
    return float(3 * np.sum(odds * np.log2(odds / SYNONYM_ODDS)))


# No odds of the same entropy lie further from the base's than its own in the opposite order.
LARGEST_SHIFT = style_shift(SYNONYM_ODDS[::-1])


@cache
def _hand(shift: float) -> tuple[float, ...]:
    ramp = np.log2(SYNONYM_ODDS) - np.log2(SYNONYM_ODDS).mean()
    hump = -((np.arange(8) - 3.5) ** 2)
    hump = (hump - hump.mean()) / np.linalg.norm(hump - hump.mean()) * np.linalg.norm(ramp)
    wanted = entropy(SYNONYM_ODDS)

    def turned(angle: float) -> Odds:
        direction = np.cos(angle) * ramp + np.sin(angle) * hump

        def odds(sharpness: float) -> Odds:
            weights = 2.0 ** (sharpness * direction)
            normalised: Odds = weights / weights.sum()
            return normalised

        return odds(brentq(lambda s: entropy(odds(s)) - wanted, 0.1, 10, xtol=1e-14))

    angle = brentq(lambda a: style_shift(turned(a)) - shift, 0, np.pi, xtol=1e-14)
    return tuple(turned(angle).tolist())


def hand(shift: float) -> Odds:
    """Returns the odds of the eight synonyms for the hand that is `shift` bits from the base's, of shape (8,).

    The distance is the KL divergence of the three words. The entropy equals that of the base's hand. To find the odds,
    the log-odds turn from the base's ramp over a hump to the opposite ramp. They are scaled so that the entropy stays
    equal.

    Raises:
        SpecError: if `shift` is negative, or larger than any shift of equal entropy.
    """
    if not 0 <= shift <= LARGEST_SHIFT:
        raise SpecError(f"style_shift {shift:g} is out of range: 0 to {np.floor(1000 * LARGEST_SHIFT) / 1000:g} bits")
    if shift == 0:
        return SYNONYM_ODDS
    if shift > LARGEST_SHIFT - 1e-9:  # the end of the turn, which rounding may put just out of its reach
        return SYNONYM_ODDS[::-1].copy()
    return np.array(_hand(shift))
