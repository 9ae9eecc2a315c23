"""All kinds of adapters that can be chosen, in the order in which they are listed everywhere."""

from capacity.plan.kinds.kind import AdapterKind, Site
from capacity.plan.kinds.lora import LoraKind
from capacity.plan.kinds.lora_xs import LoraXsKind
from capacity.plan.kinds.peft_small import UniLoraKind, VbLoraKind, VeraKind
from capacity.plan.kinds.steering import SteeringKind
from capacity.plan.kinds.tinylora import TinyLoraKind
from capacity.plan.kinds.whole import BitFitKind, FullKind
from capacity.plan.model_shapes import ModelShape
from capacity.spec.adapters import Adapter, Injected

TINYLORA, LORA_XS, LORA, FULL = TinyLoraKind(), LoraXsKind(), LoraKind(), FullKind()
KINDS: dict[str, AdapterKind] = {
    kind.name: kind
    for kind in (TINYLORA, LORA_XS, LORA, VeraKind(), VbLoraKind(), UniLoraKind(), SteeringKind(), BitFitKind(), FULL)
}


def trained_parameters(adapter: Adapter, model: str, shape: ModelShape) -> int:
    """How many parameters the update of a spec has on a model; 0 for the untrained model.

    Args:
        adapter: the spec.
        model: name of the model, for errors.
        shape: shape of the model.

    Raises:
        SpecError: the model has no such update.
    """
    if adapter.kind not in KINDS:
        return 0
    site = Site(model, shape, adapter.targets if isinstance(adapter, Injected) else None)
    kind = KINDS[adapter.kind]
    told = adapter.model_dump(include=set(kind.options), exclude_none=True)
    return kind.chosen(told, site).trained_parameters
