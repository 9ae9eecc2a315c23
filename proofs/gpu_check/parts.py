"""The parts of the check, with their sizes for a data-centre GPU and for a CPU."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capacity.plan.model_shapes import ModelShape, shape_from_config
from capacity.plan.models import ALIASES
from capacity.spec.adapters import Lora, TinyLora
from proofs.gpu_check import engine, memory, packed, speed, together, training
from proofs.gpu_check.finding import Finding
from proofs.gpu_check.packed import Rows
from proofs.gpu_check.world import CoinBases, Sizes, bases, run_spec, write_model


@dataclass(frozen=True)
class Bounds:
    """What is a fault.

    Attributes:
        step: how long a step may take, relative to stock.
        sampling: how many tokens a second must be sampled at least, relative to `generate`.
        together: how long a run and step may take beside others, relative to alone.
        losses: how far losses may be from those alone, relative to them.
        memory: the least share of the plan that a peak may be.
    """

    step: float = 1.0
    sampling: float = 1.0
    together: float = 1.0
    losses: float = 0.02  # of bf16
    memory: float = 0.5


@dataclass(frozen=True)
class Scale:
    """The models and sizes of a check.

    Attributes:
        small, large: the shapes of the two models.
        dtype: the dtype of their weights.
        kinds: the sizes of the run of each kind of update.
        rows: the sequences that go through packed and padded passes.
        steps: the sizes of the runs whose memory and speed are measured.
        beside: the sizes of each of several runs that train together.
        counts: how many they are.
        bounds: what is a fault.
    """

    small: ModelShape
    large: ModelShape
    dtype: str
    kinds: Sizes
    rows: tuple[Rows, ...]
    steps: Sizes
    beside: Sizes
    counts: tuple[int, ...]
    bounds: Bounds


DATA_CENTRE = Scale(
    small=ALIASES["qwen2.5-0.5b"].shape,
    large=ALIASES["qwen2.5-3b"].shape,
    dtype="bf16",
    kinds=Sizes(prompts=4, samples=4, prompt_tokens=24, new_tokens=16),
    rows=(Rows("short", 4, 4, 40, 30), Rows("long", 2, 4, 300, 500)),
    steps=Sizes(prompts=8, samples=8, prompt_tokens=48, new_tokens=64, steps=4),
    beside=Sizes(prompts=4, samples=4, prompt_tokens=24, new_tokens=24, steps=3),
    counts=(1, 4, 16),
    bounds=Bounds(),
)
_TINY_CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
TINY = Scale(
    small=shape_from_config(_TINY_CONFIG, "tiny"),
    large=shape_from_config({**_TINY_CONFIG, "num_hidden_layers": 3}, "tiny"),
    dtype="bf16",
    kinds=Sizes(prompts=2, samples=4, prompt_tokens=5, new_tokens=4),
    rows=(Rows("short", 4, 4, 12, 10), Rows("long", 1, 2, 200, 260)),
    steps=Sizes(prompts=2, samples=4, prompt_tokens=6, new_tokens=5, steps=3),
    beside=Sizes(prompts=2, samples=4, prompt_tokens=6, new_tokens=5, steps=3),
    counts=(1, 2),
    bounds=Bounds(step=math.inf, sampling=0.0, together=math.inf, memory=0.0),  # times of so little say nothing
)


@dataclass
class Check:
    """The parts of a check on a device. Models are written when a part first needs them."""

    scale: Scale
    device: str
    scratch: Path
    _written: dict[str, str] = field(default_factory=dict)

    def parts(self) -> dict[str, Callable[[], Iterator[Finding]]]:
        """Returns the parts by name, in the order in which they run."""
        return {
            packed.PART: self.packed,
            training.PART: self.training,
            memory.PART: self.memory,
            speed.PART: self.speed,
            together.PART: self.together,
            engine.PART: self.engine,
        }

    def packed(self) -> Iterator[Finding]:
        scale = self.scale
        yield from packed.equal(self._folder("small"), scale.small, self.device, scale.rows, self._factors)

    def training(self) -> Iterator[Finding]:
        scale = self.scale
        loaded = self._bases(scale.small, scale.kinds)
        yield from training.every_kind(self._folder("small"), scale.small, loaded, scale.kinds, scale.dtype)

    def memory(self) -> Iterator[Finding]:
        scale = self.scale
        loaded = self._bases(scale.small, scale.steps)
        adapter = Lora(rank=8, init_seed=0)
        for size in ("small", "large"):
            specs = [
                (f"{size} model, {method}", run_spec(self._model(size), method, adapter, scale.steps))
                for method in training.METHODS
            ]
            yield from memory.near_the_plan(specs, loaded, scale.steps, low=scale.bounds.memory)

    def speed(self) -> Iterator[Finding]:
        scale, bounds = self.scale, self.scale.bounds
        loaded = self._bases(scale.small, scale.steps)
        yield from speed.against_stock(
            self._model("small"), scale.small, loaded, scale.steps, bounds.step, bounds.sampling
        )

    def together(self) -> Iterator[Finding]:
        scale, bounds = self.scale, self.scale.bounds
        loaded = self._bases(scale.small, scale.beside)
        adapter = TinyLora(groups=8, u=2, projection_seed=0)
        yield from together.in_common_passes(
            self._model("small"), loaded, adapter, scale.beside, scale.counts, bounds.losses, bounds.together
        )

    def engine(self) -> Iterator[Finding]:
        scale = self.scale
        loaded = self._bases(scale.small, scale.kinds)
        spec = run_spec(self._folder("small"), "grpo", Lora(rank=8, init_seed=0), scale.kinds, rate=0.01)
        yield from engine.fresh(spec, loaded)

    @property
    def _factors(self) -> Path:
        return self.scratch / "factors"

    def _bases(self, shape: ModelShape, sizes: Sizes) -> CoinBases:
        return bases(self.device, self._factors, shape, sizes)

    def _folder(self, size: str) -> str:
        """The folder of a model. The small one is kept in fp32, the large one in the dtype of the check."""
        if size not in self._written:
            shape, dtype = (self.scale.small, "fp32") if size == "small" else (self.scale.large, self.scale.dtype)
            self._written[size] = write_model(shape, self.scratch / size, dtype, self.device)
        return self._written[size]

    def _model(self, size: str) -> str:
        return f"{self._folder(size)}?dtype={self.scale.dtype}"
