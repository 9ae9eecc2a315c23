"""All kinds of adapters that can be chosen, in the order in which they are listed everywhere."""

from capacity.plan.kinds.kind import AdapterKind
from capacity.plan.kinds.lora import LoraKind
from capacity.plan.kinds.lora_xs import LoraXsKind
from capacity.plan.kinds.peft_small import UniLoraKind, VbLoraKind, VeraKind
from capacity.plan.kinds.steering import SteeringKind
from capacity.plan.kinds.tinylora import TinyLoraKind
from capacity.plan.kinds.whole import BitFitKind, FullKind

TINYLORA, LORA_XS, LORA, FULL = TinyLoraKind(), LoraXsKind(), LoraKind(), FullKind()
KINDS: dict[str, AdapterKind] = {
    kind.name: kind
    for kind in (TINYLORA, LORA_XS, LORA, VeraKind(), VbLoraKind(), UniLoraKind(), SteeringKind(), BitFitKind(), FULL)
}
