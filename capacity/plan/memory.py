"""What a run needs in memory to sample and to train, estimated before anything is loaded. No torch.

The estimate counts what grows with the sizes. It counts weights, and the trained update with its gradient and Adam's
two moments. It counts the keys and values of the sequences sampled at once. It counts the activations that one forward
and backward pass keeps, and the logits of its rows. Rows count with all their tokens, though most models take packed
rows, whose prompts stand once. Allocator overhead and the libraries come on top: `HEADROOM`.

`run_memory` is the one estimate of a run: `capacity plan`, `compare`, `models` and `sweep` print it, and `check_memory`
holds it against the device before a run is loaded.
"""

from dataclasses import dataclass, fields
from typing import Any

from capacity.errors import SpecError, TrainingError
from capacity.plan.kinds.table import trained_parameters
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.plan.models import model_shape
from capacity.plan.quantities import parse_quantity
from capacity.spec.adapters import AdapterSpec, Injected
from capacity.spec.run import RunSpec

WEIGHT_BYTES: dict[str, float] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1.03, "nf4": 0.56, "fp4": 0.56}
HEADROOM = 1.15
PROMPT_TOKENS = 256  # of the longest prompt, which only the task knows
SAMPLED_AT_ONCE = 256  # sequences at most; more make no GPU faster
# Of one pass over a model with gradients: logits of the model and of the base, their log-softmaxes for the loss and for
# KL, and KL's three intermediates. A pass without gradients keeps fewer.
_LOGIT_COPIES = 8
_LOGIT_COPIES_FORWARD = 3
GPU_SHARE = 0.9  # of a GPU's memory that is planned with
# Activations and logits of one pass on a CPU, weights and update not counted. Fixed: several workers share the memory,
# and the number of slices, which moves the last bits of a sum, should not depend on the machine.
CPU_PASS_BYTES = 2 * 1024**3
_CPU_CACHE_BYTES = 512 * 1024**2  # keys and values of the sequences that are sampled at once on a CPU
_GPU_CACHE_SHARE = 4  # a GPU gives one part in four of its memory to them


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of a run in bytes, by what it is for.

    Attributes:
        weights: the frozen model. Its embeddings and head stay in the compute dtype when the rest is quantised.
        update: the trained parameters with their gradient and moments, in fp32.
        cache: keys and values of the sequences that are sampled at once.
        activations: what a backward pass over one slice of a step keeps.
        logits: the logits of one slice, in fp32.
    """

    weights: int
    update: int
    cache: int
    activations: int
    logits: int

    @property
    def resident(self) -> int:
        """Bytes of weights and update, which stay in memory all the time."""
        return self.weights + self.update

    @property
    def sampling(self) -> int:
        """Bytes needed while completions are sampled, headroom included."""
        return int(HEADROOM * (self.resident + self.cache))

    @property
    def training(self) -> int:
        """Bytes needed while a step is trained, headroom included."""
        return int(HEADROOM * (self.resident + self.activations + self.logits))

    @property
    def peak(self) -> int:
        """Bytes that the run needs: the larger of `sampling` and `training`."""
        return max(self.sampling, self.training)

    def to_json(self) -> dict[str, Any]:
        """The parts and the peak as plain JSON types."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "peak": self.peak}


def parse_memory(text: str) -> int:
    """Bytes of `24GB`, `1,000MB` or `40GiB`.

    Raises:
        SpecError: not a positive number of bytes.
    """
    try:
        found = parse_quantity(text)
    except ValueError as error:
        raise SpecError(f"--memory {text!r} {error}: write 24GB or 40GiB") from None
    if found.kind != "bits" or found.amount < 8:
        raise SpecError(f"--memory {text!r} is no number of bytes: write 24GB or 40GiB")
    return found.amount // 8


def run_memory(spec: RunSpec, *, sampled: int = 1, rows: int = 1, prompt_tokens: int = PROMPT_TOKENS) -> MemoryPlan:
    """The memory of a run. The defaults give the least that it can do with: one sequence at a time.

    Args:
        spec: the run; every completion may be as long as the spec allows.
        sampled: how many sequences are sampled at once.
        rows: how many sequences of a step go through the model at once. A run without training has none.
        prompt_tokens: length of the longest prompt.

    Raises:
        SpecError: the model is unknown, or has no such update.
    """
    (_, shape), name = model_shape(spec.model), parse_model(spec.model)
    return memory_plan(
        shape,
        trained=trained_parameters(spec.adapter, spec.model, shape),
        sequences=sampled,
        micro_batch=min(rows, step_rows(spec)),
        prompt_tokens=prompt_tokens,
        new_tokens=longest_completion(spec),
        dtype=name.dtype,
        quantised=name.quantised,
        full=spec.adapter.every_weight,
        extra=kept_numbers(spec.adapter, shape, name.dtype),
    )


def rows_that_fit(spec: RunSpec, device_bytes: int, prompt_tokens: int = PROMPT_TOKENS) -> int:
    """How many sequences of a step go through the model at once on a GPU; 0 for a run without training.

    Args:
        spec: the run.
        device_bytes: memory of the GPU.
        prompt_tokens: length of the longest prompt.
    """
    (_, shape), dtype = model_shape(spec.model), parse_model(spec.model).dtype
    fitting = rows_at_once(
        shape,
        prompt_tokens=prompt_tokens,
        new_tokens=longest_completion(spec),
        dtype=dtype,
        extra=kept_numbers(spec.adapter, shape, dtype),
        resident=run_memory(spec).resident,
        device_bytes=device_bytes,
    )
    return min(step_rows(spec), fitting)


def check_memory(spec: RunSpec, available: int) -> None:
    """Checks that a run fits `available` bytes, with one sequence at a time.

    Raises:
        TrainingError: it does not; the message says what to change.
    """
    what = advice(run_memory(spec), available)
    if what is not None:
        raise TrainingError(f"{parse_model(spec.model)}: {what}")


def step_rows(spec: RunSpec) -> int:
    """Sequences of a step; 0 for a run without training."""
    return 0 if spec.training is None else spec.training.prompts_per_step * spec.training.samples_per_prompt


def longest_completion(spec: RunSpec) -> int:
    """Tokens of the longest completion that a run samples or trains on."""
    evaluated = spec.evaluation.max_new_tokens
    return evaluated if spec.training is None else max(evaluated, spec.training.max_new_tokens)


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
    extra: int = 0,
) -> MemoryPlan:
    """The arithmetic of `run_memory`.

    Args:
        shape: shape of the model.
        trained: number of parameters that are trained.
        sequences: how many are sampled at once.
        micro_batch: how many sequences one forward and backward pass takes, a slice of a step.
        prompt_tokens, new_tokens: length of the longest sequence.
        dtype: dtype of weights and activations.
        quantised: how the linear modules are stored, if they are quantised.
        full: every weight is trained, so the update is no addition to the weights but its gradient and moments are.
        extra: numbers a token that the update keeps in fp32, from `kept_numbers`.
    """
    width = WEIGHT_BYTES[dtype]
    linear = sum(m.d * m.k for m in shape.linears)
    stored = WEIGHT_BYTES[quantised] if quantised else width
    row = row_bytes(shape, prompt_tokens, new_tokens, dtype, extra=extra)
    return MemoryPlan(
        weights=int(linear * stored + (shape.parameters - linear) * width),
        update=update_bytes(trained, full=full),
        cache=sequences * (prompt_tokens + new_tokens) * token_cache_bytes(shape, dtype),
        activations=micro_batch * row.activations,
        logits=micro_batch * row.logits,
    )


def update_bytes(trained: int, *, full: bool) -> int:
    """Bytes that so many trained parameters take in fp32: themselves, their gradient, Adam's two moments.

    A full update is the weights themselves, so it adds the other three. But the untrained weights are kept, and while
    the untrained model is asked the trained ones are put aside.
    """
    return trained * (20 if full else 16)


def token_cache_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of the keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * int(WEIGHT_BYTES[dtype])


def kept_numbers(adapter: AdapterSpec, shape: ModelShape, dtype: str) -> int:
    """Numbers a token, in all blocks, that a pass keeps in fp32 for the gradient of an update on linear modules.

    They are inputs of the modules, or outputs of the update. A model in fp32 has the inputs anyway.
    """
    if not isinstance(adapter, Injected) or adapter.keeps == "nothing":
        return 0
    modules = shape.adapted_modules(adapter.targets)
    if adapter.keeps == "outputs":
        return sum(module.d for module in modules)
    return 0 if dtype == "fp32" else sum(module.k for module in modules)


@dataclass(frozen=True)
class RowBytes:
    """Bytes of one sequence in a pass: activations in the model's dtype, those of the update and logits in fp32."""

    activations: int
    logits: int


def row_bytes(
    shape: ModelShape,
    prompt_tokens: int,
    new_tokens: int,
    dtype: str = "fp32",
    *,
    backward: bool = True,
    extra: int = 0,
) -> RowBytes:
    """Bytes of one sequence in a pass over the model, whose update keeps `extra` numbers a token in fp32.

    A pass without a backward one keeps one block's activations at a time, and fewer copies of the logits.
    """
    # Kept by one block for the backward pass, in units of hidden: its input, both norms, the attention's output and
    # its projection, queries; keys and values; gate, up, their product and the activation.
    heads = shape.heads * shape.head_dim
    kept = 5 * shape.hidden + 2 * heads + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    tokens = prompt_tokens + new_tokens
    blocks, copies = (shape.layers, _LOGIT_COPIES) if backward else (1, _LOGIT_COPIES_FORWARD)
    return RowBytes(
        activations=int(tokens * (blocks * kept * WEIGHT_BYTES[dtype] + (4 * extra if backward else 0))),
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
    extra: int = 0,
) -> int:
    """How many rows of a step go forward and backward together. Every pass of a step takes this many, or fewer.

    It is not part of a run's identity: the loss is that of the whole step whatever the slices.

    Args:
        shape: shape of the model.
        prompt_tokens, new_tokens: length of the widest row.
        dtype: dtype of weights and activations.
        resident: bytes of weights and update, which stay in memory.
        device_bytes: memory of the GPU; None on a CPU, where a pass takes at most `CPU_PASS_BYTES`, half of that
            without a backward one.
        backward: whether a backward pass follows.
        extra: numbers a token that the update keeps in fp32, from `kept_numbers`.

    Returns:
        One at least, whether it fits or not: `advice` says what to change.
    """
    row = row_bytes(shape, prompt_tokens, new_tokens, dtype, backward=backward, extra=extra)
    on_cpu = CPU_PASS_BYTES if backward else CPU_PASS_BYTES / 2
    room = on_cpu if device_bytes is None else GPU_SHARE * device_bytes / HEADROOM - resident
    return max(1, int(room // (row.activations + row.logits)))


def sampled_at_once(sequence_bytes: int, device_bytes: int | None) -> int:
    """How many sequences are sampled at once: `SAMPLED_AT_ONCE`, or fewer where their keys and values are large.

    Args:
        sequence_bytes: keys and values of one sequence.
        device_bytes: memory of the GPU, of which they may fill a quarter; None on a CPU, where 512 MB are theirs.
    """
    room = _CPU_CACHE_BYTES if device_bytes is None else device_bytes // _GPU_CACHE_SHARE
    return max(1, min(SAMPLED_AT_ONCE, room // max(1, sequence_bytes)))


_SMALLER = "lower the task's max_new_tokens, or hold the weights in fewer bits (?dtype=bf16, ?quantised=nf4)"


def advice(least: MemoryPlan, available: int) -> str | None:
    """What to change when even the plan with one row at a time does not fit `available` bytes; None if it does."""
    if least.peak <= available:
        return None
    needed = f"needs about {gigabytes(least.peak)}, there are {gigabytes(available)}"
    if HEADROOM * least.weights > available:
        way_out = "load them with ?dtype=bf16 or ?quantised=nf4, or take a smaller model"
        return f"{needed}: the weights alone do not fit; {way_out}"
    if HEADROOM * least.resident > available:
        return f"{needed}: weights and update with its moments do not fit; take a smaller update, or a smaller model"
    if least.training > available:
        return f"{needed}, for one sequence at a time: {_SMALLER}"
    return f"{needed}, to sample one sequence at a time: {_SMALLER}"


def gigabytes(count: int) -> str:
    """A number of bytes in words: in GB, in MB below a tenth of a GB, in bytes below a tenth of an MB."""
    if count < 10**5:
        return f"{count:,} B"
    return f"{count / 1e6:.1f} MB" if count < 10**8 else f"{count / 1e9:.1f} GB"
