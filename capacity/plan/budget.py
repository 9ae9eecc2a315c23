"""Budgets (`100`, `26B`, `1KiB`, `208bit`) and the solver that turns one into the largest update within it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, isqrt
from typing import Literal

from capacity.errors import BudgetError, SpecError
from capacity.plan.sharing import Sharing, assign_groups
from capacity.plan.storage import parameters_within

_UNIT_BITS = {"bit": 1, "B": 8, "KiB": 8 * 1024, "MiB": 8 * 1024**2, "GiB": 8 * 1024**3}
_GRAMMAR = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*")

AdapterKind = Literal["tinylora", "lora-xs", "lora", "vera", "vb-lora", "uni-lora", "bitfit", "full"]
VB_LORA_TOPK = 2


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
    """An update of `trained_parameters` scalars, with the numbers that its adapter has and None for all others.

    Attributes:
        adapter: its kind.
        trained_parameters: scalars that are trained.
        rank: frozen rank of tinylora and lora-xs, trained rank of lora, rank of the comparators.
        u, groups: entries of a vector and vectors (tinylora).
        vectors, vector_length: size of the bank (vb-lora).
        length: entries of the one vector (uni-lora).
    """

    adapter: AdapterKind
    trained_parameters: int
    rank: int | None = None
    u: int | None = None
    groups: int | None = None
    vectors: int | None = None
    vector_length: int | None = None
    length: int | None = None


def tinylora(groups: int, u: int, rank: int) -> Solution:
    """g vectors of u entries."""
    return Solution("tinylora", groups * u, rank=rank, u=u, groups=groups)


def lora_xs(shapes: Sequence[ModuleShape], rank: int) -> Solution:
    """A free r × r matrix a module: M r²."""
    return Solution("lora-xs", len(shapes) * rank**2, rank=rank)


def lora(shapes: Sequence[ModuleShape], rank: int) -> Solution:
    """Two factors a module: Σ r (d + k)."""
    return Solution("lora", rank * _sides(shapes), rank=rank)


def vera(shapes: Sequence[ModuleShape], rank: int) -> Solution:
    """Two scaling vectors a module: Σ (d + r)."""
    return Solution("vera", sum(s.d + rank for s in shapes), rank=rank)


def vb_lora(shapes: Sequence[ModuleShape], rank: int, vectors: int, vector_length: int) -> Solution:
    """A bank, and a logit for each of its h vectors and each piece of length L of the factors: h L + h r Σ (d + k) / L.

    Raises:
        SpecError: a side of a module is not a multiple of L, or there are fewer vectors than are mixed.
    """
    for shape in shapes:
        if vector_length < 1 or shape.d % vector_length or shape.k % vector_length:
            raise SpecError(
                f"vector length {vector_length} does not divide both sides of {shape.name}, {shape.d}×{shape.k}: "
                f"{largest_vector_length(shapes)} does"
            )
    if vectors < VB_LORA_TOPK:
        raise SpecError(f"a bank of {vectors} vectors is below {VB_LORA_TOPK}, the number that vb-lora mixes")
    count = vectors * vector_length + vectors * rank * _sides(shapes) // vector_length
    return Solution("vb-lora", count, rank=rank, vectors=vectors, vector_length=vector_length)


def uni_lora(shapes: Sequence[ModuleShape], rank: int, length: int) -> Solution:
    """One vector of any length up to the size of LoRA, Σ r (d + k).

    Raises:
        SpecError: a length out of this range.
    """
    longest = rank * _sides(shapes)
    if not 1 <= length <= longest:
        raise SpecError(f"length {length} is outside 1 … {longest:,}, the entries of LoRA of rank {rank}")
    return Solution("uni-lora", length, rank=rank, length=length)


def bitfit(biases: int) -> Solution:
    """All biases.

    Raises:
        SpecError: there are none.
    """
    if biases == 0:
        raise SpecError("this model has no biases, so adapter bitfit trains nothing: choose another adapter")
    return Solution("bitfit", biases)


def full(model_parameters: int) -> Solution:
    """All weights."""
    return Solution("full", model_parameters)


def largest_vector_length(shapes: Sequence[ModuleShape]) -> int:
    """The largest power of two up to 256 that divides every side of every module."""
    return gcd(256, *(side for s in shapes for side in (s.d, s.k)))


def smallest_side(shapes: Sequence[ModuleShape]) -> int:
    """The largest rank that the update of every module can have."""
    return min(min(s.d, s.k) for s in shapes)


def _sides(shapes: Sequence[ModuleShape]) -> int:
    """Σ (d + k): the size of LoRA of rank 1."""
    return sum(s.d + s.k for s in shapes)


def tinylora_solution(modules: int, limit: int, rank: int) -> Solution:
    """The paper's guideline: lower u to 1 before tying more.

    `limit` < M: u = 1 and g = `limit`; otherwise g = M and u = min(⌊limit / M⌋, r²).
    """
    groups = min(limit, modules)
    return tinylora(groups, 1 if limit < modules else min(limit // modules, rank * rank), rank)


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
        return full(model_parameters)
    best = tinylora_solution(len(shapes), limit, rank)
    widest = smallest_side(shapes)
    for candidate in (
        lora_xs(shapes, min(isqrt(limit // len(shapes)), widest)),
        lora(shapes, min(limit // _sides(shapes), widest)),
    ):
        if candidate.trained_parameters > best.trained_parameters:
            best = candidate
    if best.adapter == "tinylora":
        assert best.groups is not None
        assign_groups([s.type for s in shapes], best.groups, sharing)
    return best


def largest_of(
    adapter: AdapterKind,
    shapes: Sequence[ModuleShape],
    limit: int,
    *,
    rank: int,
    vector_length: int | None = None,
    model_parameters: int = 0,
    biases: int = 0,
) -> Solution:
    """The update of one kind with the largest count ≤ `limit`.

    Args:
        adapter: the kind.
        shapes: the adapted modules; not used for bitfit and full.
        limit: trained parameters allowed.
        rank: of tinylora, vb-lora and uni-lora; that of lora-xs, lora and vera is what is solved for.
        vector_length: L of vb-lora; `largest_vector_length` if None.
        model_parameters: the count of full.
        biases: the count of bitfit.

    Raises:
        BudgetError: not even the smallest update of this kind fits; its size is named.
        SpecError: it does not exist on these modules.
    """
    match adapter:
        case "tinylora":
            smallest = tinylora(1, 1, rank)
            found = tinylora_solution(len(shapes), limit, rank)
        case "lora-xs":
            smallest = lora_xs(shapes, 1)
            found = lora_xs(shapes, min(isqrt(limit // len(shapes)), smallest_side(shapes)))
        case "lora":
            smallest = lora(shapes, 1)
            found = lora(shapes, min(limit // _sides(shapes), smallest_side(shapes)))
        case "vera":
            smallest = vera(shapes, 1)
            found = vera(shapes, 1 + max(limit - smallest.trained_parameters, 0) // len(shapes))
        case "vb-lora":
            smallest = vb_lora(shapes, rank, VB_LORA_TOPK, vector_length or largest_vector_length(shapes))
            assert smallest.vector_length is not None
            per_vector = smallest.trained_parameters // VB_LORA_TOPK
            found = vb_lora(shapes, rank, max(limit // per_vector, VB_LORA_TOPK), smallest.vector_length)
        case "uni-lora":
            smallest = uni_lora(shapes, rank, 1)
            found = uni_lora(shapes, rank, max(min(limit, rank * _sides(shapes)), 1))
        case "bitfit":
            smallest = found = bitfit(biases)
        case "full":
            smallest = found = full(model_parameters)
    if limit < smallest.trained_parameters:
        kind = "is" if adapter in ("bitfit", "full") else "starts at"
        raise BudgetError(
            f"a budget of {limit:,} parameters is too small for adapter {adapter}, which {kind} "
            f"{smallest.trained_parameters:,} on this model: raise it, or choose another adapter"
        )
    return found
