"""An update whose parameters have few levels is stored by the numbers of the levels, a few bits for each parameter."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from capacity.adapters.files.choice_bits import pack_candidates, unpack_candidates
from capacity.errors import DataError
from capacity.spec.frozen import Frozen


class Levels(Frozen):
    """The values that a parameter may have: 2^bits of them, evenly spaced from −scale to scale.

    With 0 bits there is one value, the scale itself.
    """

    bits: Annotated[int, Field(ge=0, le=20)]
    scale: Annotated[float, Field(gt=0)]

    @property
    def values(self) -> tuple[float, ...]:
        """Returns the values in rising order."""
        count = 1 << self.bits
        return (self.scale,) if count == 1 else tuple(np.linspace(-self.scale, self.scale, count).tolist())

    def encode(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns the tensor "theta" of an update of shape (n,): ⌈n · bits / 8⌉ bytes.

        Raises:
            DataError: if a number is none of the values.
        """
        values = torch.tensor(self.values)
        numbers = (vector.float()[:, None] - values).abs().argmin(1)
        if not torch.equal(values[numbers], vector.float()):
            raise DataError(f"the update has a number that is none of the {len(self.values)} levels")
        return {"theta": pack_candidates(numbers.tolist(), self.bits)}

    def decode(self, tensors: dict[str, Tensor], count: int) -> Tensor:
        """Returns the update of shape (count,) that `encode` stored, in fp32.

        Raises:
            DataError: if `encode` cannot have written these tensors for so many numbers.
        """
        if set(tensors) != {"theta"}:
            raise DataError(f"the stored levels cannot be read: they are {sorted(tensors)}, not ['theta']")
        numbers = unpack_candidates(tensors["theta"], count, self.bits, "the update")
        return torch.tensor(self.values)[list(numbers)]
