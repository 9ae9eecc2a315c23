"""Updates of the model's own weights: all of them, or its biases (arXiv 2106.10199)."""

from capacity.errors import SpecError
from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.spec.adapters import BitFit, FullUpdate


class BitFitKind(AdapterKind):
    """As many parameters as the model has biases."""

    spec = BitFit

    def chosen(self, told: Told, site: Site) -> Size:
        """All biases, those of layer norms included."""
        if site.shape.biases == 0:
            raise SpecError("this model has no biases, so adapter bitfit trains nothing: choose another adapter")
        return Size(BitFit(), site.shape.biases)


class FullKind(AdapterKind):
    """As many parameters as the model has."""

    spec = FullUpdate

    def chosen(self, told: Told, site: Site) -> Size:
        """All weights."""
        return Size(FullUpdate(), site.shape.parameters)
