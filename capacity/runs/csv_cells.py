"""Texts in CSV files that a spreadsheet shows as they are. It would take some of them for formulas, and run them."""

from typing import TypeVar

_Value = TypeVar("_Value")
# What starts a formula, and the sign by which a spreadsheet takes a cell as text, so that reading back is exact.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def as_cell(value: _Value) -> _Value | str:
    """Returns a value as it is written in a CSV file: a text that could be a formula gets an apostrophe before it.

    Numbers are written as they are. The rule is OWASP's, see https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def from_cell(text: str) -> str:
    """Returns the text that `as_cell` has written as `text`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
