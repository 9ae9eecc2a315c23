"""Numbers with units, as options and study files write them: `1,000`, `100k`, `26B`, `1KiB`, `24GB`, `208bit`."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

_PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_UNITS = {
    **{prefix: (size, "count") for prefix, size in _PREFIXES.items()},
    **{f"{prefix}bit": (size, "bits") for prefix, size in _PREFIXES.items()},
    **{f"{prefix}B": (8 * size, "bits") for prefix, size in (_PREFIXES | _BINARY).items()},
}
_NUMBER = re.compile(r"\s*([0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9]{1,18})(\.[0-9]{1,9})?\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Quantity:
    """A number of things (`kind` "count"), or a number of bits (`kind` "bits")."""

    amount: int
    kind: Literal["count", "bits"]


def parse_quantity(text: str) -> Quantity:
    """Reads a whole number that may have separators of thousands, a decimal prefix and a unit.

    `k`, `M`, `G` and `T` are powers of 1,000. `KiB`, `MiB`, `GiB` and `TiB` are powers of 1,024 bytes.

    Raises:
        ValueError: the text is no such number; the message ends a sentence that begins with the text.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError("cannot be read")
    unit = found[3]
    if unit not in _UNITS:
        raise ValueError(
            f"has an unknown unit {unit!r}: use k, M or G for numbers, B, kB, KiB, MB, MiB, GB, GiB or bit"
        )
    size, kind = _UNITS[unit]
    amount = Fraction(found[1].replace(",", "") + (found[2] or "")) * size
    if amount.denominator != 1:
        raise ValueError("is not a whole number")
    return Quantity(int(amount), "count" if kind == "count" else "bits")
