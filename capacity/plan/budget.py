"""Budgets: `100`, `26B`, `1KiB`, `208bit`."""

import re
from dataclasses import dataclass
from typing import Literal

from capacity.errors import BudgetError
from capacity.plan.storage import parameters_within

_UNIT_BITS = {"bit": 1, "B": 8, "KiB": 8 * 1024, "MiB": 8 * 1024**2, "GiB": 8 * 1024**3}
_GRAMMAR = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Budget:
    """A limit on trained parameters (`unit` "parameters") or on payload bits (`unit` "bits")."""

    amount: int
    unit: Literal["parameters", "bits"]

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Reads `100` (parameters), `26B`, `1KiB`, `1MiB`, `1GiB` or `208bit`.

        Raises:
            BudgetError: not of this form, an unknown unit, or zero.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise BudgetError(f"budget {text!r} cannot be read: write 100 (parameters), 26B, 1KiB or 208bit")
        amount, unit = int(match[1]), match[2]
        if amount == 0:
            raise BudgetError(f"budget {text!r} is below one parameter")
        if not unit:
            return cls(amount, "parameters")
        if unit not in _UNIT_BITS:
            raise BudgetError(f"budget {text!r} has an unknown unit {unit!r}: use bit, B, KiB, MiB or GiB")
        return cls(amount * _UNIT_BITS[unit], "bits")

    def parameters(self, dtype: str, choice_bits: int = 0) -> int:
        """The limit as a number of parameters stored in `dtype`, each with `choice_bits` that choose its projection.

        Raises:
            BudgetError: not even one parameter fits.
        """
        count = self.amount if self.unit == "parameters" else parameters_within(self.amount, dtype, choice_bits)
        if count < 1:
            raise BudgetError(f"a budget of {self.amount} bits is below one parameter in {dtype}")
        return count
