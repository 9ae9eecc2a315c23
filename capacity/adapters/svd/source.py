"""Where the SVD factors of a loaded model's weights come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from capacity.adapters.linears import is_conv1d, weight_matrix
from capacity.adapters.svd.cache import cached_svd
from capacity.adapters.svd.checkpoint import WeightFolder, folder_factors
from capacity.adapters.svd.factors import Factors
from capacity.plan.model_shapes import ModuleShape

OnModule = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FactorSource:
    """Where to look for factors before they are computed.

    Attributes:
        cache: folder of cached factors, None for no cache.
        weights: the checkpoint that the model was loaded from without rounding. Its factors are found in the cache
            without hashing the model, or computed tensor by tensor.
        known: factors by module name, if they are known already.
        on_module: called with (done, all, name) after each module's factors.
    """

    cache: Path | None
    weights: WeightFolder | None = None
    known: Mapping[str, Factors] | None = None
    on_module: OnModule | None = None

    def of(self, model: nn.Module, shapes: Sequence[ModuleShape], rank: int) -> Iterator[Factors]:
        """The factors of the modules `shapes` of the bare `model`, one after the other.

        Raises:
            DataError: the checkpoint cannot be read, or is another model's.
            CapacityError: weights that are not finite, or that bitsandbytes has repacked.
        """
        known = self.known
        if known is None and self.weights is not None:
            transposed = [s.name for s in shapes if is_conv1d(model.get_submodule(s.name))]
            known = folder_factors(self.weights, shapes, rank, self.cache, self.on_module, transposed)
        for done, shape in enumerate(shapes, start=1):
            if known is not None and shape.name in known:
                yield known[shape.name]
                continue
            yield cached_svd(weight_matrix(model.get_submodule(shape.name)), rank, shape.name, self.cache)
            if self.on_module is not None:
                self.on_module(done, len(shapes), shape.name)
