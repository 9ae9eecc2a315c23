"""What a stored update costs: payload bytes per storage dtype, and how many parameters a payload can hold.

The storage dtype is the dtype of the stored update; θ itself always trains in fp32. The header of an artifact
(recipe and fingerprints) is counted apart, see `capacity.adapters.artifact`.
"""

from typing import Literal, get_args

StorageDtype = Literal["fp32", "bf16", "fp16"]
STORAGE_DTYPES: tuple[str, ...] = get_args(StorageDtype)
BITS_PER_PARAMETER: dict[str, int] = {"fp32": 32, "bf16": 16, "fp16": 16}


def payload_bytes(parameters: int, dtype: str) -> int:
    """Bytes of `parameters` stored numbers in `dtype`, without any header."""
    return -(-parameters * BITS_PER_PARAMETER[dtype] // 8)


def parameters_within(bits: int, dtype: str) -> int:
    """The largest number of parameters whose payload in `dtype` takes at most `bits` bits."""
    return bits // BITS_PER_PARAMETER[dtype]
