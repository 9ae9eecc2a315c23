"""Remembers gradients at θ = 0, which are the same for all runs on one base that see the same batches.

The gradient of one method chooses the projections of all runs of a seed. So the first of them measures it for all, at
every size, number of bits and learning rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from capacity.spec.run import RunSpec


@dataclass(frozen=True)
class FirstGradient:
    """The gradient of a free R in every module at θ = 0, averaged over the first batches of training.

    Attributes:
        of_module: ∂loss/∂R of every module, shape (M, r, r), float64.
        cost: what measuring it used, by the names of the costs in `Result`.
    """

    of_module: Tensor
    cost: dict[str, int]


@dataclass(frozen=True)
class BaseGradients:
    """First gradients under one base, by the runs that they belong to.

    A value does not depend on who asked for it first: each run would have measured the same on the same batches.
    """

    _known: dict[tuple[str, int], FirstGradient] = field(default_factory=dict)

    def of(self, spec: RunSpec, batches: int, measure: Callable[[], FirstGradient]) -> FirstGradient:
        """Returns the gradient of a run at θ = 0.

        Args:
            spec: the run whose LoRA-XS adapter has the free R.
            batches: how many batches are measured.
            measure: measures the gradient. It is called if the gradient is not known yet.
        """
        assert spec.training is not None
        # The learning rate and the evaluation play no part at θ = 0.
        training = spec.training.model_copy(update={"learning_rate": 1.0})
        key = spec.model_copy(update={"training": training}).model_dump_json(exclude={"evaluation", "storage_dtype"})
        if (key, batches) not in self._known:
            self._known[key, batches] = measure()
        return self._known[key, batches]
