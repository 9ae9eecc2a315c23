"""The types that the rooms of the analysis share."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# What sizes are counted in.
Unit = Literal["parameters", "bytes"]
# What intervals are for: fresh seeds on the items that were asked, or fresh seeds on fresh items of a population.
Items = Literal["these", "population"]
