"""What a model needs in memory to sample and to train, estimated from its shape before anything is loaded. No torch.

The estimate counts what grows with the sizes: weights, the trained update with its gradient and Adam's two moments, the
keys and values of the sequences sampled at once, the activations that one forward and backward pass keeps, and the
logits of a step. Allocator overhead and the libraries come on top: `HEADROOM`.
"""

from dataclasses import dataclass, fields
from typing import Any

from capacity.models.shapes import ModelShape

WEIGHT_BYTES: dict[str, float] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1.03, "nf4": 0.56, "fp4": 0.56}
HEADROOM = 1.15
_LOGIT_COPIES = 4  # logits, their log-softmax, its gradient, and those of the base that KL needs


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part.

    Attributes:
        weights: of the frozen model; embeddings and head stay in the compute dtype when the rest is quantised.
        update: trained parameters with gradient and moments, fp32.
        cache: keys and values while sampling `sequences` at once.
        activations: what a backward pass over one micro-batch keeps.
        logits: of one micro-batch, fp32.
    """

    weights: int
    update: int
    cache: int
    activations: int
    logits: int

    @property
    def sampling(self) -> int:
        """At the widest point of a rollout."""
        return int(HEADROOM * (self.weights + self.update + self.cache))

    @property
    def training(self) -> int:
        """At the widest point of a step."""
        return int(HEADROOM * (self.weights + self.update + self.activations + self.logits))

    @property
    def peak(self) -> int:
        """The larger of both."""
        return max(self.sampling, self.training)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "peak": self.peak}


def memory_plan(
    shape: ModelShape,
    *,
    trained: int,
    sequences: int,
    micro_batch: int,
    prompt_tokens: int,
    new_tokens: int,
    dtype: str = "fp32",
    quantised: str | None = None,
    full: bool = False,
) -> MemoryPlan:
    """The memory of one run.

    Args:
        shape: of the model.
        trained: parameters that are trained.
        sequences: sampled at once.
        micro_batch: sequences of one forward and backward pass.
        prompt_tokens, new_tokens: of the longest sequence.
        dtype: of weights and activations.
        quantised: how the linear modules are stored, if they are.
        full: every weight is trained, so the update is no addition to the weights but its gradient and moments are.
    """
    width = WEIGHT_BYTES[dtype]
    linear = sum(m.d * m.k for m in shape.linears)
    stored = WEIGHT_BYTES[quantised] if quantised else width
    tokens = prompt_tokens + new_tokens
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * width
    # Kept by one block for the backward pass, in units of hidden: its input, both norms, the attention's output and
    # its projection, queries; keys and values; gate, up, their product and the activation.
    heads = shape.heads * shape.head_dim
    kept = 5 * shape.hidden + 2 * heads + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    return MemoryPlan(
        weights=int(linear * stored + (shape.parameters - linear) * width),
        update=int(trained * (12 if full else 16)),
        cache=int(sequences * tokens * per_token),
        activations=int(micro_batch * tokens * shape.layers * kept * width),
        logits=int(micro_batch * new_tokens * shape.vocabulary * 4 * _LOGIT_COPIES),
    )


def advice(plan: MemoryPlan, available: int) -> str | None:
    """What to change when a plan does not fit into `available` bytes; None if it fits."""
    if plan.peak <= available:
        return None
    needed = f"needs about {_gigabytes(plan.peak)}, there are {_gigabytes(available)}"
    if HEADROOM * (plan.weights + plan.update) > available:
        return (
            f"{needed}: weights alone do not fit; load them with ?dtype=bf16 or ?quantised=nf4, or take a smaller model"
        )
    if plan.training > available:
        return f"{needed}: take a smaller micro-batch, or fewer new tokens"
    return f"{needed}: sample fewer sequences at once, or fewer new tokens"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
