"""How numbers of b bits are stored, such as the candidates of a projection: one after the other, highest bit first."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from capacity.errors import DataError


def pack_candidates(candidates: Sequence[int], bits: int) -> Tensor:
    """Returns the numbers in `bits` bits each as bytes, shape (⌈n · bits / 8⌉,), uint8. The last byte ends in zeros."""
    numbers = np.array(candidates, dtype=np.int64)
    places = (numbers[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return torch.from_numpy(np.packbits(places.astype(np.uint8).reshape(-1)))


def unpack_candidates(
    stored: Tensor | None, count: int, bits: int, what: str = "the choice of the projection"
) -> tuple[int, ...]:
    """Returns the `count` numbers that `pack_candidates` wrote with `bits` bits each. Errors call them `what`.

    Raises:
        DataError: if `stored` is not what it writes for so many numbers.
    """
    size = -(-count * bits // 8)
    if stored is None or stored.dtype != torch.uint8 or stored.shape != (size,):
        found = "nothing" if stored is None else f"{stored.dtype} of shape {tuple(stored.shape)}"
        raise DataError(f"{what} cannot be read: {size} bytes are expected, it is {found}")
    places = np.unpackbits(stored.cpu().numpy())
    if places[count * bits :].any():
        raise DataError(f"{what} cannot be read: it holds more than {count} numbers")
    weights = 1 << np.arange(bits - 1, -1, -1)
    return tuple((places[: count * bits].reshape(count, bits).astype(np.int64) @ weights).tolist())
