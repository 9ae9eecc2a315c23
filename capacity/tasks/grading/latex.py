r"""Compares LaTeX answers: what can be decided exactly is decided here, the rest by math-verify in its own process.

math-verify rounds, and reads some notations wrongly. So a comparison of plain numbers, of numerals with a base, and of
tuples of plain numbers never reaches it. `docs/tasks.md` lists which of its faults remain.
"""

import re
from functools import lru_cache

from capacity.tasks.grading.answers import AnswerForm, stated
from capacity.tasks.grading.numbers import SUPERSCRIPTS, VULGAR_FRACTIONS, number, vulgar
from capacity.tasks.grading.verifier import verifier

LONGEST_ANSWER = 1_000  # characters; a longer one is compared by its letters only

_SPACES = re.compile(r"(?:\\[,!;: ]|\\(?:left|right|displaystyle)(?![a-zA-Z])|[\s$~])+")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_BASE = re.compile(r"([0-9A-Za-z]+)_(?:\{([0-9]{1,2})\}|([0-9]))")
_TUPLE = re.compile(r"([(\[])([^()\[\]{}]*,[^()\[\]{}]*)([)\]])")
_PADDED = re.compile(r"[-+]?0[0-9]")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+|[A-Za-z]))")
_POWER = re.compile(f"[{SUPERSCRIPTS}]+")
_DIGITS = str.maketrans(SUPERSCRIPTS, "0123456789")
_VULGAR = re.compile(f"[{VULGAR_FRACTIONS}]")
_SIGNS = str.maketrans({"∞": r"\infty ", "·": r"\cdot ", "°": r"^{\circ}"})


def latex_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Tells whether the completion's answer equals `answer`.

    It is False if the comparison reaches its limit of time or memory.
    """
    found = stated(completion, form)
    if found is not None:
        known = decided(found, answer)
        if known or (known is None and len(found) <= LONGEST_ANSWER and _equal(answer, found, stated=True)):
            return True
        if known is False and form != "hash":  # math-verify would read the same answer again
            return False
    return lenient and bool(completion.strip()) and _equal(answer, completion, stated=False)


def decided(found: str, answer: str) -> bool | None:
    """Tells whether two LaTeX answers are equal, where that needs no algebra; None where math-verify must decide."""
    if same_latex(found, answer):
        return True
    if len(found) > LONGEST_ANSWER:
        return None
    one, other = number(found), number(answer)
    if one is not None and other is not None:
        if one != other and ("%" in found) != ("%" in answer):
            return None  # 12 % may be meant as 0.12
        return one == other
    one_numeral, other_numeral = _numeral(found), _numeral(answer)
    if one_numeral is not None and other_numeral is not None:
        return one_numeral == other_numeral
    return _same_tuple(found, answer)


def same_latex(one: str, other: str) -> bool:
    """Tells whether two LaTeX answers are written alike but for spacing and sizes.

    A blank between two digits counts: 3 1/2 is not 31/2. Answers that are written differently may still be equal, so
    False decides nothing.
    """
    return _plain_latex(one) == _plain_latex(other) != ""


def in_latex(text: str) -> str:
    r"""Returns `text` with the characters of Unicode that math-verify does not read in LaTeX."""
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2] or found[3] or ''}}}", text)
    text = _POWER.sub(lambda found: f"^{{{found[0].translate(_DIGITS)}}}", text)
    text = _VULGAR.sub(lambda found: r"\frac{{{}}}{{{}}}".format(*vulgar(found[0]).split("/")), text)
    return text.translate(_SIGNS)


def _numeral(text: str) -> tuple[int, int] | None:
    """Returns the value and the base of a numeral such as 4210_7; None if `text` is none, as x_1 is."""
    match = _BASE.fullmatch(_plain_latex(text))
    if match is None:
        return None
    base = int(match[2] or match[3])
    try:
        return (int(match[1], base), base) if base > 1 else None
    except ValueError:  # a digit is none of this base
        return None


def _same_tuple(found: str, answer: str) -> bool | None:
    """Tells whether two tuples or intervals of plain numbers are equal; None if they are no such thing.

    In (1,000) the second number is not 0: a number with padding is equal to none.
    """
    one, other = (_TUPLE.fullmatch(_plain_latex(text)) for text in (found, answer))
    if not (one and other):
        return None
    parts, wanted = one[2].split(","), other[2].split(",")
    if any(number(part) is None for part in (*parts, *wanted)):
        return None
    if len(parts) != len(wanted) or any(map(_PADDED.match, (*parts, *wanted))):
        return False
    if any(number(part) != number(whole) for part, whole in zip(parts, wanted, strict=True)):
        return False
    return True if (one[1], one[3]) == (other[1], other[3]) else None


@lru_cache(maxsize=65_536)  # strict and lenient grades of a completion, and its repetitions, are worked out once
def _equal(answer: str, text: str, *, stated: bool) -> bool:
    return verifier("math").right(answer=in_latex(answer), text=in_latex(text), stated=stated)


def _plain_latex(text: str) -> str:
    text = _SPACES.sub(_space, _WORDS.sub(r" \1 ", text))
    return text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").removesuffix(".")


def _space(found: "re.Match[str]") -> str:
    """Returns the blank between two digits, and nothing elsewhere."""
    start, end = found.span()
    before, after = found.string[max(0, start - 1) : start], found.string[end : end + 1]
    return " " if before.isdigit() and after.isdigit() and found[0] != r"\!" else ""
