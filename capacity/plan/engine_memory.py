"""How an engine and the trainer share one device's memory. No torch."""

from dataclasses import asdict, dataclass
from typing import Any

from capacity.errors import SpecError
from capacity.plan.memory import HEADROOM, WEIGHT_BYTES, MemoryPlan
from capacity.plan.model_shapes import ModelShape

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts as its largest rank
SEQUENCES_AT_ONCE = 64  # of the longest kind that the engine's cache holds side by side; others are queued
PROMPT_TOKENS = 2048  # of the longest prompt that an engine takes, where the model's context allows
_SMALLEST_CACHE = 64 * 1024**2


@dataclass(frozen=True)
class SharedPlan:
    """Bytes of an engine and of the trainer on one device.

    Attributes:
        engine_weights: the engine's own copy, in its dtype.
        engine_cache: its keys and values.
        engine_slots: LoRA adapters, at the largest rank that it is started with.
        trainer_resident: the trainer's weights and update, which stay.
        trainer_step: the same with activations and logits of a step.
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
        """Awake."""
        return int(HEADROOM * (self.engine_weights + self.engine_cache + self.engine_slots))

    @property
    def peak(self) -> int:
        """At the wider of rollout and step."""
        return max(self.engine + self.trainer_resident, self.trainer_step + (0 if self.sleeps else self.engine))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "engine": self.engine, "peak": self.peak}


def cache_bytes(shape: ModelShape, dtype: str, tokens: int, sequences: int = SEQUENCES_AT_ONCE) -> int:
    """Keys and values of so many sequences of `tokens` tokens, of which an engine needs one at the very least."""
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * int(WEIGHT_BYTES[dtype])
    return max(_SMALLEST_CACHE, sequences * tokens * per_token)


def shared_plan(
    shape: ModelShape,
    trainer: MemoryPlan,
    *,
    dtype: str,
    rank: int | None,
    tokens: int,
    sequences: int = SEQUENCES_AT_ONCE,
    sleeps: bool = True,
) -> SharedPlan:
    """The split of a device.

    Args:
        shape: of the model.
        trainer: what the trainer needs.
        dtype: of the engine's weights.
        rank: of the adapter that is swapped; None if the engine takes merged weights.
        tokens: of the longest sequence.
        sequences: that the cache holds at once.
        sleeps: the engine sleeps while the trainer works, which it can on a GPU.
    """
    width = int(WEIGHT_BYTES[dtype])
    per_rank = sum(m.d + m.k for m in shape.linears)
    largest = 0 if rank is None else engine_rank(min(rank, LORA_RANKS[-1]))
    return SharedPlan(
        engine_weights=shape.parameters * width,
        engine_cache=cache_bytes(shape, dtype, tokens, sequences),
        engine_slots=slots(2) * largest * per_rank * width,
        trainer_resident=int(HEADROOM * (trainer.weights + trainer.update)),
        trainer_step=trainer.training,
        sleeps=sleeps,
    )


def engine_rank(rank: int) -> int:
    """The smallest of the ranks that vLLM can be started with that holds adapters of `rank`.

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
    """`max_loras` for so many adapters loaded at once: one more than that, always.

    vLLM 0.32 on CPUs marks rows of the base with slot −1, which indexes the *last* slot: if any adapter was ever put
    there, base rows get its output without a word. The first free slot is taken, so a spare one at the end stays zero.
    """
    return adapters + 1
