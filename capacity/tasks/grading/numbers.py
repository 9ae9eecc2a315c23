r"""The grammar of numbers. Strict and lenient grading, references and the readers of data sets all use it.

    number    = [sign] [currency] magnitude [multiplier] [unit]
    magnitude = mixed | fraction | decimal [exponent]
    mixed     = digits blank digits "/" digits        3 1/2, 3½, 3\frac12; the fraction is below 1
    fraction  = integer "/" integer                   3/4, ¾, \frac{3}{4}
    decimal   = integer ["." digits] | "." digits
    integer   = digits | groups of three              1000; 1,000 with a comma or a narrow blank, one kind in a number
    exponent  = e5, E-3, × 10^5
    multiplier = dozen, hundred, thousand, million, billion, trillion

Signs are the hyphens, dashes and minus signs of Unicode. A unit is a currency sign, a per-cent sign or a degree sign.
It does not change the value: 12 % is 12. Digits are those of ASCII. Markup of LaTeX around a number is ignored.
Everything else is no number: 2,5 is neither 25 nor 2.5. `docs/tasks.md` has a table of cases. Every function takes time
linear in the length of its text.
"""

import re
import unicodedata
from collections import deque
from fractions import Fraction

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
VULGAR_FRACTIONS = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_DIGITS = 40  # a number with more digits is no answer of any task here, and is not read
_LONGEST = 200  # characters, with markup

_CURRENCY = "[$€£¥₹]"
_BLANK = "[ \u00a0\u2009\u202f]"
_GROUPS = "|".join(rf"(?:{separator}[0-9]{{3}})++" for separator in (",", "\u2009", "\u202f", "\u00a0"))
_INTEGER = rf"(?:[1-9][0-9]{{0,2}}(?:{_GROUPS})(?![0-9])|[0-9]++)"
_FRACTION = rf"{_INTEGER}{_BLANK}?/{_BLANK}?{_INTEGER}"
_MIXED = rf"[0-9]++(?:{_BLANK}{{1,2}}|{_BLANK}and{_BLANK})[0-9]++/[0-9]++"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*+)?|\.[0-9]++)"
_TIMES = rf"(?:{_BLANK}?[×·*]{_BLANK}?|{_BLANK}x{_BLANK})"
_EXPONENT = rf"(?:[eE][-+]?[0-9]{{1,3}}(?![0-9])|{_TIMES}10\^\{{?[-+]?[0-9]{{1,3}}(?![0-9])\}}?)"
_MULTIPLIERS = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_MULTIPLIER = rf"{_BLANK}?(?i:{'|'.join(_MULTIPLIERS)})(?![A-Za-z])"
_SIGN = "(?:[-+]|(?i:minus|negative) )"
_PREFIX = rf"(?:{_SIGN}(?:{_CURRENCY}{_BLANK}?)?|{_CURRENCY}{_BLANK}?{_SIGN}?)?"
_NUMBER = rf"{_PREFIX}(?:{_MIXED}|{_FRACTION}|{_DECIMAL}{_EXPONENT}?)(?:{_MULTIPLIER})?"
_UNIT = rf"{_BLANK}?(?:%|°|{_CURRENCY}|(?i:per ?cent)(?![A-Za-z]))"

_WHOLE = re.compile(
    rf"(?P<prefix>{_PREFIX})(?:(?P<whole>[0-9]++)(?:{_BLANK}{{1,2}}|{_BLANK}and{_BLANK})(?P<part>[0-9]++/[0-9]++)"
    rf"|(?P<fraction>{_FRACTION})|(?P<decimal>{_DECIMAL})(?P<exponent>{_EXPONENT})?)"
    rf"(?P<multiplier>{_MULTIPLIER})?(?:{_UNIT}){{0,2}}\.?"
)
# Numbers that an operator, a comma without a blank or only a blank joins: 12*3, 10–12, 2,5, 12 500. They are no answer.
_JOINT = (
    rf"(?:(?:{_UNIT})?{_BLANK}{{0,2}}(?:[-+*/×·÷^x]|(?i:minus|plus|times)){_BLANK}{{0,2}}[({{]?"
    rf"|[.,:'’]|(?<=[0-9]){_BLANK}{{1,2}}|)"
)
_EXPRESSION = re.compile(
    rf"(?<![A-Za-z0-9_^{{\\.,/±√-])(?<!-{_BLANK})(?<!-{_BLANK}{{2}}){_NUMBER}(?:{_JOINT}{_NUMBER})*+(?![A-Za-z_]{{1,3}}[0-9]|k\b|[{SUPERSCRIPTS}])"
)
_NAME = re.compile(r"[A-Za-z](?:-| ?[_^]\{?)?[0-9][0-9.,]*")  # x2, cm^2, COVID-19: digits that are no number

_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|bm|boxed|fbox)\s*\{([^{}]*)\}")
_NESTED = 3  # \boxed{\text{\textbf{5}}}
_LATEX_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([-+]?[0-9]{1,40})\s*\}|([0-9]))\s*(?:\{\s*([0-9]{1,40})\s*\}|([0-9]))"
)
_LATEX = re.compile(
    r"\\[,!;: ()\[\]]|\\(?:left|right|displaystyle|times|cdot|div)(?![a-zA-Z])|\\[$%]|\{,\}|\^\{?\\circ\}?|~"
)
_PLAIN_OF_LATEX = {
    r"\,": "\u2009",
    r"\!": "",
    r"\times": "×",
    r"\cdot": "·",
    r"\div": "÷",
    r"\$": "$",
    r"\%": "%",
    "{,}": ",",
}
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–‐‑﹣－", "-"),
        **dict.fromkeys("＋﹢", "+"),
        **dict.fromkeys("⁄∕", "/"),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
        "％": "%",
        "º": "°",
    }
)
_VULGAR = re.compile(f"[{VULGAR_FRACTIONS}]")
_DASH = re.compile(rf"(?<!\w)—(?={_CURRENCY}?[0-9.])")  # elsewhere a long dash is punctuation
_BULLET = re.compile(rf"^{_BLANK}*[-+*•]{_BLANK}+")
_SIGN_APART = re.compile(rf"(^|[=≈:(#]){_BLANK}{{0,2}}([-+]){_BLANK}{{1,2}}(?={_CURRENCY}?[0-9.])")  # x = - 12


def number(text: str) -> Fraction | None:
    """Returns the number that `text` is; None if it is no number of the grammar."""
    if len(text) > _LONGEST:
        return None
    return _value(_SIGN_APART.sub(r"\1\2", _plain(text).strip()))


def last_number(text: str) -> Fraction | None:
    """Returns the last number in `text`.

    It is None if there is none. It is also None if the last digits are part of an expression, a range or a date, or of
    a number outside the grammar. It is also None after a dash between blanks, which may be a minus sign. Digits of a
    name count for nothing: x2, cm^2, COVID-19.
    """
    for line in reversed(_plain(text).splitlines()):
        whole = number(line)
        if whole is not None:
            return whole
        bare = _SIGN_APART.sub(r"\1\2", _BULLET.sub("", line))
        found = deque(_EXPRESSION.finditer(bare), maxlen=1)
        rest = _NAME.sub("", bare[found[0].end() :] if found else bare)
        if any(digit in rest for digit in "0123456789"):
            return None
        if found:
            return _value(found[0][0])
    return None


def shown(value: Fraction) -> str:
    """Returns a number as text: decimal where the decimals end, else as a fraction."""
    twos, fives, rest = 0, 0, value.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if value < 0 else "") + (f"{whole}.{decimals}" if decimals else whole)


def vulgar(character: str) -> str:
    """Returns a fraction of Unicode as text: ¾ as 3/4."""
    return unicodedata.normalize("NFKC", character).replace("⁄", "/")


def _value(text: str) -> Fraction | None:
    match = _WHOLE.fullmatch(text)
    if match is None or sum(c in "0123456789" for c in text) > _DIGITS:
        return None
    try:
        size = _size(match)
    except ZeroDivisionError:
        return None
    if size is None:
        return None
    multiplier = (match["multiplier"] or "").strip().lower()
    negative = any(sign in match["prefix"].lower() for sign in ("-", "minus", "negative"))
    return size * _MULTIPLIERS.get(multiplier, 1) * (-1 if negative else 1)


def _size(match: "re.Match[str]") -> Fraction | None:
    """Returns the magnitude of a match of `_WHOLE`; None if a mixed number has a part of 1 or more."""
    if match["whole"] is not None:
        part = Fraction(match["part"])
        return int(match["whole"]) + part if part < 1 else None
    if match["fraction"] is not None:
        above, _, below = match["fraction"].partition("/")
        return Fraction(int(_digits(above)), int(_digits(below)))
    exponent = re.sub(r".*[eE^]|[{}]", "", match["exponent"] or "0")
    return Fraction(_digits(match["decimal"])) * Fraction(10) ** int(exponent)


def _digits(text: str) -> str:
    bare = re.sub(rf"{_BLANK}|,", "", text)
    return bare.removesuffix(".") if len(bare) > 1 else bare


def _plain(text: str) -> str:
    """Returns `text` with signs, fractions and blanks of LaTeX and Unicode in the characters of the grammar."""
    text = text.translate(_CHARACTERS)
    text = _LATEX.sub(lambda found: _PLAIN_OF_LATEX.get(found[0], "°" if "circ" in found[0] else " "), text)
    for _ in range(_NESTED):
        text = _WRAPPED.sub(r" \1 ", text)
    text = _LATEX_FRACTION.sub(_plain_fraction, text)
    text = _VULGAR.sub(lambda found: _apart(found) + vulgar(found[0]), text)
    return _DASH.sub("-", text)


def _plain_fraction(found: "re.Match[str]") -> str:
    return f"{_apart(found)}{found[1] or found[2]}/{found[3] or found[4]}"


def _apart(found: "re.Match[str]") -> str:
    """Returns the blank between a whole number and the fraction that follows it."""
    before = found.string[found.start() - 1 : found.start()] if found.start() else ""
    return " " if before in set("0123456789") else ""
