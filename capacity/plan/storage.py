"""Computes what a stored update costs: payload bytes per storage dtype, and how many parameters a payload can hold.

The storage dtype is the dtype of the stored update; θ itself always trains in fp32. `capacity.adapters.files.codec`
writes exactly these sizes. The header of an artifact (recipe and fingerprints) is counted apart, see
`capacity.adapters.files.artifact`.
"""

from bisect import bisect_right
from typing import get_args

from capacity.errors import BudgetError
from capacity.spec.adapters import StorageDtype

STORAGE_DTYPES: tuple[str, ...] = get_args(StorageDtype)
FIXED_SIZE_DTYPES: tuple[str, ...] = tuple(dtype for dtype in STORAGE_DTYPES if dtype != "entropy")
BLOCK = 64  # consecutive entries that share a scale
SCALE_BYTES = 2  # bf16
_ENTRY_BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4}
_SCALED = frozenset({"fp8", "int8", "int4"})


def payload_bytes(parameters: int, dtype: str) -> int:
    """Returns the bytes of `parameters` stored numbers in `dtype` with their scales, without any header.

    Raises:
        BudgetError: if `dtype` is "entropy", whose size depends on the numbers.
    """
    scales = SCALE_BYTES * -(-parameters // BLOCK) if dtype in _SCALED else 0
    return -(-parameters * _entry_bits(dtype) // 8) + scales


def choice_bytes(parameters: int, choice_bits: int) -> int:
    """Returns the bytes that say which candidate is the projection of each parameter, `choice_bits` for each."""
    return -(-parameters * choice_bits // 8)


def parameters_within(bits: int, dtype: str, choice_bits: int = 0) -> int:
    """Returns the largest number of parameters whose payload in `dtype` takes at most `bits` bits.

    The stored numbers and the choice of the projection, `choice_bits` a parameter, take whole bytes each.

    Raises:
        BudgetError: if `dtype` is "entropy", whose size depends on the numbers.
    """
    entry_bits, size = _entry_bits(dtype), bits // 8
    if choice_bits:
        most = size * 8 // (entry_bits + choice_bits)
        sizes = range(most + 1)
        return bisect_right(sizes, size, key=lambda n: payload_bytes(n, dtype) + choice_bytes(n, choice_bits)) - 1
    if dtype not in _SCALED:
        return size * 8 // entry_bits
    blocks, rest = divmod(size, payload_bytes(BLOCK, dtype))
    return BLOCK * blocks + max(rest - SCALE_BYTES, 0) * 8 // entry_bits


def _entry_bits(dtype: str) -> int:
    if dtype == "entropy":
        raise BudgetError(
            "the size of an entropy-coded update is known only after training: "
            "give the budget in parameters, or choose another storage dtype"
        )
    return _ENTRY_BITS[dtype]
