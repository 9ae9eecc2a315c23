"""Budgets: `100`, `1,000`, `100k`, `26B`, `1KiB`, `208bit`."""

from dataclasses import dataclass
from typing import Literal

from capacity.errors import BudgetError
from capacity.plan.quantities import parse_quantity
from capacity.plan.storage import parameters_within


@dataclass(frozen=True)
class Budget:
    """A limit on trained parameters (`unit` "parameters") or on payload bits (`unit` "bits")."""

    amount: int
    unit: Literal["parameters", "bits"]

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Reads a number of parameters (`100`, `1,000`, `100k`), of bytes (`26B`, `1KiB`), or of bits (`208bit`).

        Raises:
            BudgetError: not of this form, an unknown unit, or zero.
        """
        try:
            found = parse_quantity(text)
        except ValueError as error:
            hint = "" if "unit" in str(error) else ": write 100 (parameters), 100k, 26B, 1KiB or 208bit"
            raise BudgetError(f"budget {text!r} {error}{hint}") from None
        if found.amount == 0:
            raise BudgetError(f"budget {text!r} is below one parameter")
        return cls(found.amount, "parameters" if found.kind == "count" else "bits")

    def parameters(self, dtype: str) -> int:
        """The limit as a number of parameters stored in `dtype`.

        Raises:
            BudgetError: not even one parameter fits.
        """
        count = self.amount if self.unit == "parameters" else parameters_within(self.amount, dtype)
        if count < 1:
            raise BudgetError(f"a budget of {self.amount} bits is below one parameter in {dtype}")
        return count
