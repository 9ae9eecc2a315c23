"""Tells whether an answer is of the type of its reference, so that a verifier of reasoning-gym may reward it.

Some of those verifiers pay for what is no answer at all: "nan" for a complex number, any text for a truth value.
`docs/tasks.md` lists them, and `proofs/gym_verifiers.py` finds them.
"""

import re
from fractions import Fraction

from capacity.tasks.grading.numbers import number

_NEAREST = Fraction(1, 100)  # no verifier rounds more coarsely than to 1 % of the reference
_NOT_FINITE = re.compile(r"\b(?:nan|inf|infinity)(?:j|i)?\b", re.IGNORECASE)
_EXPRESSION = re.compile(r"[0-9\s+\-*/().]+")
_INTEGER = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def same_type(answer: str, reference: str) -> bool:
    """Tells whether `answer` is of the type of `reference`. An empty reference has no type.

    - A truth value is answered by the same truth value.
    - A number is answered by a number of the grammar that lies within 1 % of it.
    - An expression of numbers is answered by one of the same numbers.
    - Where numbers are asked for, nothing infinite and no NaN is an answer.
    """
    if reference in ("True", "False"):
        return answer.strip().casefold() == reference.casefold()
    if _NOT_FINITE.search(answer) and not _NOT_FINITE.search(reference):
        return bool(reference) and not _INTEGER.search(reference)
    wanted = number(reference)
    if wanted is not None:
        found = number(answer)
        return found is not None and abs(found - wanted) <= _NEAREST * abs(wanted)
    if _EXPRESSION.fullmatch(reference):
        return _values(answer) == _values(reference)
    return True


def _values(text: str) -> list[Fraction]:
    """Returns the numbers in a text by size, without their signs: 2.50 and 2.5 are one number."""
    return sorted(map(Fraction, _DECIMAL.findall(text)))
