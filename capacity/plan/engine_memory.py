"""How a vLLM engine and the trainer share one device's memory. No torch."""

from dataclasses import asdict, dataclass
from typing import Any

from capacity.errors import SpecError
from capacity.plan.memory import HEADROOM, WEIGHT_BYTES, MemoryPlan, token_cache_bytes
from capacity.plan.model_shapes import ModelShape

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts as its largest rank
SEQUENCES_AT_ONCE = 64  # of the longest kind that the engine's cache holds side by side; others are queued
LONGEST_PROMPT = 2048  # tokens that an engine takes as a prompt, where the model's context allows
ADAPTERS_OF_A_RUN = 2  # loaded at once: the update of this step, and that of the step before until this one has arrived
_SMALLEST_CACHE = 64 * 1024**2


@dataclass(frozen=True)
class SharedPlan:
    """Bytes of an engine and of the trainer on one device.

    Attributes:
        engine_weights: the engine's own copy of the weights, in its dtype.
        engine_cache: keys and values that the engine keeps.
        engine_slots: room for LoRA adapters, at the largest rank that the engine is started with.
        trainer_resident: weights and update of the trainer, which stay in memory.
        trainer_step: what the trainer needs for a step: the resident part, activations and logits.
        sleeps: the engine gives weights and cache back while the trainer works.
    """

    engine_weights: int
    engine_cache: int
    engine_slots: int
    trainer_resident: int
    trainer_step: int
    sleeps: bool

    @property
    def engine(self) -> int:
        """Bytes that the engine takes while it is awake, headroom included."""
        return int(HEADROOM * (self.engine_weights + self.engine_cache + self.engine_slots))

    @property
    def peak(self) -> int:
        """Bytes that the device must have: those of a rollout or those of a step, whichever are more."""
        return max(self.engine + self.trainer_resident, self.trainer_step + (0 if self.sleeps else self.engine))

    def to_json(self) -> dict[str, Any]:
        """The parts, the engine's sum and the peak as plain JSON types."""
        return {**asdict(self), "engine": self.engine, "peak": self.peak}


def engine_tokens(shape: ModelShape, new_tokens: int) -> int:
    """Tokens of the longest sequence that an engine is started for, within the model's context.

    There is room for one token more than prompt and completion: where the engine only scores it draws one all the same.
    """
    return min(LONGEST_PROMPT + new_tokens + 1, shape.context)


def cache_bytes(shape: ModelShape, dtype: str, tokens: int, sequences: int = SEQUENCES_AT_ONCE) -> int:
    """Bytes of the engine's cache: keys and values of so many sequences of `tokens` tokens, 64 MiB at least."""
    return max(_SMALLEST_CACHE, sequences * tokens * token_cache_bytes(shape, dtype))


def shared_plan(
    shape: ModelShape,
    trainer: MemoryPlan,
    *,
    dtype: str,
    rank: int | None,
    new_tokens: int,
    sleeps: bool = True,
) -> SharedPlan:
    """How a device is split between the trainer of a run and the engine that samples for it.

    Args:
        shape: shape of the model.
        trainer: what the trainer needs, from `capacity.plan.memory.run_memory`.
        dtype: dtype of the engine's weights.
        rank: rank of the adapter that is swapped; None if the engine takes merged weights.
        new_tokens: length of the longest completion.
        sleeps: the engine sleeps while the trainer works, which it can on a GPU.
    """
    width = int(WEIGHT_BYTES[dtype])
    per_rank = sum(m.d + m.k for m in shape.linears)
    largest = 0 if rank is None else engine_rank(min(rank, LORA_RANKS[-1]))
    return SharedPlan(
        engine_weights=shape.parameters * width,
        engine_cache=cache_bytes(shape, dtype, engine_tokens(shape, new_tokens)),
        engine_slots=slots(ADAPTERS_OF_A_RUN) * largest * per_rank * width,
        trainer_resident=int(HEADROOM * trainer.resident),
        trainer_step=trainer.training,
        sleeps=sleeps,
    )


def engine_rank(rank: int) -> int:
    """The smallest rank that vLLM can be started with to hold adapters of `rank`.

    Raises:
        SpecError: there is none.
    """
    fitting = [r for r in LORA_RANKS if r >= rank]
    if not fitting:
        raise SpecError(
            f"adapter rank {rank} is above vLLM's largest, {LORA_RANKS[-1]}: take a smaller --rank, sync by merging, "
            "or use --rollouts transformers"
        )
    return fitting[0]


def slots(adapters: int) -> int:
    """vLLM's option `max_loras` for so many adapters loaded at once: one more than that, always.

    vLLM 0.32 on CPUs marks rows of the base with slot −1, which indexes the *last* slot. If any adapter was ever put
    there, base rows get its output without a message. The first free slot is taken, so a spare one at the end stays
    zero.
    """
    return adapters + 1
