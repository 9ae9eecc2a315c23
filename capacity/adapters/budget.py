"""Budgets (`100`, `26B`, `1KiB`, `208bit`) and the solver that turns one into the largest update within it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from capacity.adapters.sharing import Sharing, assign_groups
from capacity.adapters.storage import parameters_within
from capacity.errors import BudgetError

_UNIT_BITS = {"bit": 1, "B": 8, "KiB": 8 * 1024, "MiB": 8 * 1024**2, "GiB": 8 * 1024**3}
_GRAMMAR = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*")

AdapterKind = Literal["tinylora", "lora-xs", "lora", "full"]


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

    def parameters(self, dtype: str) -> int:
        """The limit as a number of parameters stored in `dtype`.

        Raises:
            BudgetError: not even one parameter fits.
        """
        count = self.amount if self.unit == "parameters" else parameters_within(self.amount, dtype)
        if count < 1:
            raise BudgetError(f"a budget of {self.amount} bits is below one parameter in {dtype}")
        return count


@dataclass(frozen=True)
class ModuleShape:
    """One adapted linear module W of shape (d, k): `name` is its path in the bare transformers model."""

    name: str
    d: int
    k: int

    @property
    def type(self) -> str:
        """Module type, the last part of the name: "q_proj", "down_proj", …"""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Solution:
    """An update of `trained_parameters` scalars. `u` and `groups` only for tinylora, `rank` not for full."""

    adapter: AdapterKind
    trained_parameters: int
    rank: int | None = None
    u: int | None = None
    groups: int | None = None


def tinylora_solution(modules: int, limit: int, rank: int) -> Solution:
    """The paper's guideline: lower u to 1 before tying more.

    `limit` < M: u = 1 and g = `limit`; otherwise g = M and u = min(⌊limit / M⌋, r²).
    """
    groups = min(limit, modules)
    u = 1 if limit < modules else min(limit // modules, rank * rank)
    return Solution("tinylora", groups * u, rank=rank, u=u, groups=groups)


def solve(
    shapes: Sequence[ModuleShape],
    model_parameters: int,
    limit: int,
    *,
    rank: int = 2,
    sharing: Sharing = "tiled",
) -> Solution:
    """The update with the largest count ≤ `limit`: TinyLoRA, then LoRA-XS, then LoRA, then full.

    Args:
        shapes: the M adapted modules.
        model_parameters: parameters of the whole model, the count of `full`.
        limit: trained parameters allowed.
        rank: frozen rank r of TinyLoRA.
        sharing: checked against the number of groups that comes out.

    Raises:
        BudgetError: `limit` below one or above the whole model.
    """
    if limit < 1:
        raise BudgetError(f"a budget of {limit} parameters is below one parameter")
    if limit > model_parameters:
        raise BudgetError(
            f"a budget of {limit:,} parameters is above the model, which has {model_parameters:,}: "
            "lower it, or use --adapter full"
        )
    if limit == model_parameters:
        return Solution("full", model_parameters)
    modules = len(shapes)
    best = tinylora_solution(modules, limit, rank)
    smallest_side = min(min(s.d, s.k) for s in shapes)
    xs_rank = min(isqrt(limit // modules), smallest_side)
    per_lora_rank = sum(s.d + s.k for s in shapes)
    lora_rank = min(limit // per_lora_rank, smallest_side)
    candidates = [
        Solution("lora-xs", modules * xs_rank**2, rank=xs_rank),
        Solution("lora", per_lora_rank * lora_rank, rank=lora_rank),
    ]
    for candidate in candidates:
        if candidate.trained_parameters > best.trained_parameters:
            best = candidate
    if best.adapter == "tinylora":
        assert best.groups is not None
        assign_groups([s.type for s in shapes], best.groups, sharing)
    return best
