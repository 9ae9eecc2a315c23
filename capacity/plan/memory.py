"""What a model needs in memory to sample and to train, estimated from its shape before anything is loaded. No torch.

The estimate counts what grows with the sizes: weights, the trained update with its gradient and Adam's two moments, the
keys and values of the sequences sampled at once, the activations that one forward and backward pass keeps, and the
logits of its rows. Allocator overhead and the libraries come on top: `HEADROOM`. How many rows of a step go through the
model at once follows from the same numbers: `rows_at_once`.
"""

from dataclasses import dataclass, fields
from typing import Any

from capacity.plan.model_shapes import ModelShape

WEIGHT_BYTES: dict[str, float] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1.03, "nf4": 0.56, "fp4": 0.56}
HEADROOM = 1.15
# Logits of the model and of the base, their log-softmaxes for the loss and for KL, and KL's three intermediates.
_LOGIT_COPIES = 8
_LOGIT_COPIES_FORWARD = 3
PROMPT_TOKENS = 256  # of a prompt, where only the task knows
_GPU_SHARE = 0.9  # of a GPU's memory that is planned with
# Activations and logits of one pass on a CPU, weights and update not counted. Fixed: several workers share the memory,
# and the number of slices, which moves the last bits of a sum, should not depend on the machine.
CPU_PASS_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part.

    Attributes:
        weights: of the frozen model; embeddings and head stay in the compute dtype when the rest is quantised.
        update: trained parameters with gradient and moments, fp32.
        cache: keys and values while sampling `sequences` at once.
        activations: what a backward pass over one slice of a step keeps.
        logits: of one slice, fp32.
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
        micro_batch: sequences of one forward and backward pass, a slice of a step.
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
    row = row_bytes(shape, prompt_tokens, new_tokens, dtype)
    return MemoryPlan(
        weights=int(linear * stored + (shape.parameters - linear) * width),
        update=update_bytes(trained, full=full),
        cache=int(sequences * tokens * per_token),
        activations=micro_batch * row.activations,
        logits=micro_batch * row.logits,
    )


def update_bytes(trained: int, *, full: bool) -> int:
    """Of so many trained parameters, fp32: themselves, gradient, Adam's two moments.

    Of a full update they are the weights; but the untrained weights are kept, and while the untrained model is asked
    the trained ones are put aside.
    """
    return trained * (20 if full else 16)


@dataclass(frozen=True)
class RowBytes:
    """Bytes of one sequence in a forward and backward pass: activations in the model's dtype, logits in fp32."""

    activations: int
    logits: int


def row_bytes(
    shape: ModelShape, prompt_tokens: int, new_tokens: int, dtype: str = "fp32", *, backward: bool = True
) -> RowBytes:
    """Of one sequence of so many tokens.

    A pass without a backward one keeps one block's activations at a time, and fewer copies of the logits.
    """
    # Kept by one block for the backward pass, in units of hidden: its input, both norms, the attention's output and
    # its projection, queries; keys and values; gate, up, their product and the activation.
    heads = shape.heads * shape.head_dim
    kept = 5 * shape.hidden + 2 * heads + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    tokens = prompt_tokens + new_tokens
    blocks, copies = (shape.layers, _LOGIT_COPIES) if backward else (1, _LOGIT_COPIES_FORWARD)
    return RowBytes(
        activations=int(tokens * blocks * kept * WEIGHT_BYTES[dtype]),
        logits=new_tokens * shape.vocabulary * 4 * copies,
    )


def rows_at_once(
    shape: ModelShape,
    *,
    prompt_tokens: int,
    new_tokens: int,
    dtype: str = "fp32",
    resident: int = 0,
    device_bytes: int | None = None,
    backward: bool = True,
) -> int:
    """How many rows of a step go forward and backward together. Every pass of a step takes this many, or fewer.

    It is not part of a run's identity: the loss is that of the whole step whatever the slices.

    Args:
        shape: of the model.
        prompt_tokens, new_tokens: of the widest row.
        dtype: of weights and activations.
        resident: bytes of weights and update, which stay in memory.
        device_bytes: memory of the GPU; None on a CPU, where a pass takes at most `CPU_PASS_BYTES`, half of that
            without a backward one.
        backward: whether a backward pass follows.

    Returns:
        One at least, whether it fits or not: `advice` says what to change.
    """
    row = row_bytes(shape, prompt_tokens, new_tokens, dtype, backward=backward)
    on_cpu = CPU_PASS_BYTES if backward else CPU_PASS_BYTES / 2
    room = on_cpu if device_bytes is None else _GPU_SHARE * device_bytes / HEADROOM - resident
    return max(1, int(room // (row.activations + row.logits)))


_SMALLER = "lower the task's max_new_tokens, or hold the weights in fewer bits (?dtype=bf16, ?quantised=nf4)"


def advice(least: MemoryPlan, available: int) -> str | None:
    """What to change when even the plan with one row at a time does not fit `available` bytes; None if it does."""
    if least.peak <= available:
        return None
    needed = f"needs about {gigabytes(least.peak)}, there are {gigabytes(available)}"
    if HEADROOM * least.weights > available:
        way_out = "load them with ?dtype=bf16 or ?quantised=nf4, or take a smaller model"
        return f"{needed}: the weights alone do not fit; {way_out}"
    if HEADROOM * (least.weights + least.update) > available:
        return f"{needed}: weights and update with its moments do not fit; take a smaller update, or a smaller model"
    if least.training > available:
        return f"{needed}, for one sequence at a time: {_SMALLER}"
    return f"{needed}, to sample one sequence at a time: {_SMALLER}"


def gigabytes(count: int) -> str:
    """In words; MB where it is less than a tenth of a GB, bytes where it is less than a tenth of an MB."""
    if count < 10**5:
        return f"{count:,} B"
    return f"{count / 1e6:.1f} MB" if count < 10**8 else f"{count / 1e9:.1f} GB"
