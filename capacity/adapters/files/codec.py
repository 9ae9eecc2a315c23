"""How an update is stored: a flat fp32 vector becomes one or two small tensors of a safetensors file, and back.

With fp32, bf16 and fp16 the tensor "theta" holds the n numbers. With fp8 (e4m3fn), int8 (−127…127) and int4 (−7…7, two
a byte, low nibble first) every 64 consecutive entries share a bf16 scale in "scales". With "entropy" there is one bf16
step in "scales". "theta" holds bytes: the Rice parameter k and a Golomb–Rice code of the entries in steps (Golomb 1966;
Rice & Plaunt 1971).

A decoded update is encoded to the very same tensors again, so an update that was read back can be stored anew. Numbers
too large for the storage dtype decode to infinities, for which the caller has to look.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capacity.errors import DataError
from capacity.plan.storage import BLOCK

Ints = NDArray[np.int64]
Bits = NDArray[np.uint8]

STEPS_PER_RMS = 8  # of dtype "entropy"
# Largest magnitude of a block in units of its scale. With int8 it is not 127: the scale, rounded up to bf16, leaves the
# largest entry between 127.49·128/129 > 126.5 and 127.49, which rounds to 127; and 127 scales in turn exceed 127.49
# times the next smaller bf16, at least 1/256 below, so decoding and encoding again finds the same scale.
_FULL_SCALE = {"fp8": 448.0, "int8": 127.49, "int4": 7.0}
_PLAIN = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_THETA = _PLAIN | {"fp8": torch.float8_e4m3fn, "int8": torch.int8, "int4": torch.uint8, "entropy": torch.uint8}
_SMALLEST = torch.finfo(torch.bfloat16).tiny  # scales below are subnormal, of few digits: such entries become zeros
_WINDOW = (0.93, 1.08)  # rounding to steps moves the RMS by at most half a step, 1/16
_MAX_RICE = 40
_PROBE = 256


def encode(values: Tensor, dtype: str) -> dict[str, Tensor]:
    """The tensors that store `values` in a storage dtype.

    Args:
        values: the update, shape (n,), n ≥ 1.
        dtype: one of `capacity.plan.storage.STORAGE_DTYPES`.

    Returns:
        The tensor "theta", and "scales" for the dtypes that have scales; both on the CPU.

    Raises:
        DataError: no entries, or entries that are not finite in fp32.
    """
    flat = values.detach().to("cpu", torch.float32).contiguous()
    if flat.ndim != 1 or not len(flat):
        raise DataError(f"an update to store is one vector of numbers, not of shape {tuple(flat.shape)}")
    if not bool(flat.isfinite().all()):
        raise DataError("the update holds numbers that are not finite")
    if dtype in _PLAIN:
        return {"theta": flat.to(_PLAIN[dtype], copy=True)}
    if dtype == "entropy":
        return _encode_entropy(flat.numpy())
    return _encode_blocks(flat, dtype)


def decode(tensors: dict[str, Tensor], dtype: str, count: int) -> Tensor:
    """The update that `encode` stored, in fp32, of shape (count,), on the CPU.

    Raises:
        DataError: names, dtypes, sizes or codes that `encode` cannot have written for `count` entries.
    """
    names = {"theta"} if dtype in _PLAIN else {"theta", "scales"}
    if set(tensors) != names:
        raise _damaged(dtype, f"it holds {sorted(tensors)}, not {sorted(names)}")
    theta = tensors["theta"].cpu()
    if theta.dtype != _THETA[dtype]:
        raise _damaged(dtype, f"its numbers are {theta.dtype}")
    size = {"entropy": theta.numel(), "int4": -(-count // 2)}.get(dtype, count)
    if count < 1 or theta.shape != (size,):
        raise _damaged(dtype, f"its shape {tuple(theta.shape)} is not that of {count} entries")
    if dtype in _PLAIN:
        return theta.float()
    scales = tensors["scales"].cpu()
    if scales.dtype != torch.bfloat16 or scales.shape != (1 if dtype == "entropy" else -(-count // BLOCK),):
        raise _damaged(dtype, f"its scales are {scales.dtype} of shape {tuple(scales.shape)}")
    if not bool((scales.isfinite() & (scales >= 0)).all()):
        raise _damaged(dtype, "it has a scale that is negative or not finite")
    if dtype == "entropy":
        return _decode_entropy(theta.numpy(), float(scales[0]), count)
    codes = _unpack_nibbles(theta, count) if dtype == "int4" else theta.double()
    if not bool((codes.abs() <= int(_FULL_SCALE[dtype])).all()):  # NaN codes fail too
        raise _damaged(dtype, "it has a code that stands for no number")
    return (codes * scales.double().repeat_interleave(BLOCK)[:count]).float()


def payload_bytes(tensors: dict[str, Tensor]) -> int:
    """Bytes of the numbers in `tensors`, as a safetensors file holds them, without its header."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _damaged(dtype: str, what: str) -> DataError:
    return DataError(f"the stored update cannot be read as {dtype}: {what}")


# Blocks with a scale


def _encode_blocks(values: Tensor, dtype: str) -> dict[str, Tensor]:
    """Stores fp32 `values` of shape (n,) so that the largest magnitude of each block gets the largest code."""
    n = len(values)
    blocks = torch.nn.functional.pad(values, (0, -n % BLOCK)).view(-1, BLOCK).double()
    scales = _up_to_bf16((blocks.abs().amax(dim=1) / _FULL_SCALE[dtype]).float())
    scales[scales < _SMALLEST] = 0
    divisors = torch.where(scales > 0, scales, torch.inf).double()
    ratios = (blocks / divisors[:, None]).flatten()[:n]
    if dtype == "fp8":
        return {"theta": ratios.float().to(torch.float8_e4m3fn), "scales": scales}
    codes = ratios.round().to(torch.int8)
    return {"theta": _pack_nibbles(codes) if dtype == "int4" else codes, "scales": scales}


def _up_to_bf16(values: Tensor) -> Tensor:
    """The smallest bf16 number not below each of `values`: fp32, ≥ 0, below the largest bf16 number."""
    return ((values.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32).bfloat16()


def _pack_nibbles(codes: Tensor) -> Tensor:
    """int8 codes of shape (n,) as uint8 of shape (⌈n/2⌉,), two's complement; an odd n is filled up with a zero."""
    pairs = (torch.nn.functional.pad(codes, (0, len(codes) % 2)) & 0xF).view(torch.uint8).view(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _unpack_nibbles(theta: Tensor, count: int) -> Tensor:
    """The codes that `_pack_nibbles` packed, in float64, of shape (count,)."""
    nibbles = torch.stack([theta & 0xF, theta >> 4], dim=1).flatten().double()
    if bool(nibbles[count:].any()):
        raise _damaged("int4", f"it holds more than {count} entries")
    return torch.where(nibbles < 8, nibbles, nibbles - 16)[:count]


# Uniform quantisation and a Golomb–Rice code


def _encode_entropy(values: NDArray[np.float32]) -> dict[str, Tensor]:
    """Stores fp32 `values` as whole steps. A step is RMS / 8, or one near it of which all values are multiples already.

    Rounded values have another RMS than their originals, so the RMS alone would not find the step of a decoded update.
    """
    step = _common_step(values)
    if step is None:
        step = _step_of(values)
        rounded = _times(_in_steps(values, step), step)
        if np.isfinite(rounded).all():
            values = rounded
            step = _common_step(values) or step
    theta = _rice(_in_steps(values, step)) if step else np.zeros(1, np.uint8)
    return {"theta": torch.from_numpy(theta), "scales": torch.tensor([step], dtype=torch.bfloat16)}


def _decode_entropy(theta: Bits, step: float, count: int) -> Tensor:
    if not step:
        if theta.tolist() != [0]:
            raise _damaged("entropy", "it has a code, but no step")
        return torch.zeros(count)
    return torch.from_numpy(_times(_unrice(theta, count), step))


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _step_of(values: NDArray[np.float32]) -> float:
    """The step of some values: RMS / 8 in bf16, or 0 if they are zero or next to it."""
    step = float(torch.tensor(_rms(values) / STEPS_PER_RMS).bfloat16())
    return step if step >= _SMALLEST else 0.0


def _in_steps(values: NDArray[np.float32], step: float) -> Ints:
    if not step:
        return np.zeros(len(values), np.int64)
    return np.rint(values / np.float64(step)).astype(np.int64)


def _times(numbers: Ints, step: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return (numbers * step).astype(np.float32)


def _common_step(values: NDArray[np.float32]) -> float | None:
    """The largest bf16 step about RMS / 8 of which all values are whole multiples, if there is one."""
    for step in _steps_about(_rms(values) / STEPS_PER_RMS):
        if all(np.array_equal(_times(_in_steps(part, step), step), part) for part in (values[:_PROBE], values)):
            return step
    return None


def _steps_about(centre: float) -> Iterator[float]:
    """The normal bf16 numbers in a window about `centre`, in falling order.

    They are counted through by the upper 16 bits of a fp32 number, which are a bf16 number.
    """
    low, high = (int(np.float32(edge * centre).view(np.int32)) >> 16 for edge in _WINDOW)
    for bits in range(high, low, -1):
        step = float(np.int32(bits << 16).view(np.float32))
        if step >= _SMALLEST:
            yield step


def _rice(numbers: Ints) -> Bits:
    """The Golomb–Rice code of some numbers: a byte k, the low k bits of each, then the rest of each in unary (0…01).

    Signs are folded first: 0, −1, 1, −2, … become 0, 1, 2, 3, …. All low bits come before all unary parts, so that
    both can be read and written as arrays; the size is that of the usual order. The last byte is filled up with zeros.
    """
    folded = (numbers << 1) ^ (numbers >> 63)
    n = len(folded)
    sizes = [int(np.sum(folded >> k)) + n * k for k in range(int(folded.max()).bit_length() + 1)]
    k = sizes.index(min(sizes))
    bits = np.zeros(sizes[k] + n, np.uint8)
    low, unary = bits[: n * k].reshape(n, k), bits[n * k :]
    for place in range(k):
        low[:, place] = (folded >> (k - 1 - place)) & 1
    unary[np.cumsum((folded >> k) + 1) - 1] = 1
    return np.concatenate([np.array([k], np.uint8), np.packbits(bits)])


def _unrice(theta: Bits, count: int) -> Ints:
    """The numbers that `_rice` coded.

    Raises:
        DataError: not a code of exactly `count` numbers.
    """
    k = int(theta[0]) if len(theta) else _MAX_RICE
    bits = np.unpackbits(theta[1:])
    ends = np.flatnonzero(bits[count * k :])
    if k >= _MAX_RICE or len(ends) != count or len(bits) - (count * k + int(ends[-1]) + 1) >= 8:
        raise _damaged("entropy", f"it is not a code of {count} entries")
    folded = np.diff(ends, prepend=-1) - 1
    for plane in bits[: count * k].reshape(count, k).T:
        folded = (folded << 1) | plane
    return (folded >> 1) ^ -(folded & 1)
