"""The part of a spec that says which update is trained.

A kind of adapter has a class here, its sizes in `capacity.plan.kinds`, and its build in `capacity.adapters.kinds`.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from capacity.spec.frozen import Frozen

Form = Literal["none", "low-rank", "weights", "hidden states"]
Sharing = Literal["tiled", "structured"]
Scaling = Literal["paper", "split"]
Allocation = Literal["even", "gradient"]


class AdapterSpec(Frozen):
    """An update, and what the rest of the program has to know of its kind.

    Class attributes:
        form: what the update changes. "low-rank": linear modules, by a pair B A each, so an engine loads it as a LoRA
            adapter. "weights": the model's own weights, so it can only be merged. "hidden states": what the blocks
            give on, so it can be neither. "none": nothing.
        every_weight: every weight of the model is trained.
        seed_field: the field that takes the seed of a run, so that each seed has its own random parts; None without
            random parts.
    """

    form: ClassVar[Form]
    every_weight: ClassVar[bool] = False
    seed_field: ClassVar[str | None] = None

    kind: str

    @property
    def label(self) -> str:
        """Its kind and size for progress lines and tables."""
        return self.kind

    @property
    def tuned_as(self) -> str:
        """The name under which its learning rate is looked up."""
        return self.kind

    def seeded(self, seed: int) -> Self:
        """The same adapter with the random parts of a seed."""
        return self if self.seed_field is None else self.model_copy(update={self.seed_field: seed})


class NoAdapter(AdapterSpec):
    """The untrained model."""

    form = "none"

    kind: Literal["none"] = "none"


class Injected(AdapterSpec):
    """An adapter that sits on linear modules. `targets`: their types ("q_proj", …); all linear modules if None."""

    form = "low-rank"

    targets: tuple[str, ...] | None = None
    rank: PositiveInt

    @property
    def label(self) -> str:
        """Its kind and rank."""
        return f"{self.kind} r={self.rank}"


class Factored(Injected):
    """An adapter between the frozen SVD factors of each weight.

    `scaling` "paper" puts Σ on the left, U Σ R Vᵀ; "split" uses U √Σ R √Σ Vᵀ.
    """

    scaling: Scaling = "paper"

    @property
    def tuned_as(self) -> str:
        """Its kind and scaling: another scaling makes other steps of the same rate."""
        return self.kind if self.scaling == "paper" else f"{self.kind}-{self.scaling}"


class TinyLora(Factored):
    """ΔW = U Σ (Σᵢ vᵢ Pᵢ) Vᵀ with v ∈ Rᵘ tied over each of `groups` groups (arXiv 2602.04118, equation 3).

    `allocation` "even" gives every group u entries; "gradient" deals the same groups · u entries by the groups'
    gradients at θ = 0, measured on `allocation_batches` batches of the run's own method.
    """

    seed_field = "projection_seed"

    kind: Literal["tinylora"] = "tinylora"
    rank: PositiveInt = 2
    u: PositiveInt
    groups: PositiveInt
    sharing: Sharing = "tiled"
    allocation: Allocation = "even"
    allocation_batches: PositiveInt = 4
    projection_seed: NonNegativeInt

    @property
    def label(self) -> str:
        """Its trained parameters."""
        return str(self.groups * self.u)


class LoraXs(Factored):
    """ΔW = U Σ R Vᵀ with a free r × r matrix R of each module (arXiv 2405.17604)."""

    kind: Literal["lora-xs"] = "lora-xs"


class Lora(Injected):
    """ΔW = B A, both trained (arXiv 2106.09685); A starts uniform in ±1/√k, drawn from `init_seed`, B at zero."""

    seed_field = "init_seed"

    kind: Literal["lora"] = "lora"
    init_seed: NonNegativeInt


class Vera(Injected):
    """ΔW = Λ_b B Λ_d A with A and B random, frozen and shared by all modules (arXiv 2310.11454); PEFT's build."""

    seed_field = "projection_seed"

    kind: Literal["vera"] = "vera"
    projection_seed: NonNegativeInt


class VbLora(Injected):
    """LoRA whose A and B are composed of vectors from one trained bank (arXiv 2405.15179); PEFT's build.

    Every `vector_length` entries of A and B are a mixture of the `topk` best of `vectors` bank vectors.
    The update is not zero at the start.
    """

    seed_field = "init_seed"

    kind: Literal["vb-lora"] = "vb-lora"
    vectors: PositiveInt
    vector_length: PositiveInt
    topk: PositiveInt = 2
    init_seed: NonNegativeInt


class UniLora(Injected):
    """LoRA whose entries are those of one trained vector of `length` entries, dealt at random (arXiv 2506.00799).

    PEFT's build. The update is not zero at the start.
    """

    seed_field = "projection_seed"

    kind: Literal["uni-lora"] = "uni-lora"
    length: PositiveInt
    projection_seed: NonNegativeInt


class BitFit(AdapterSpec):
    """Every bias that the model has is trained (arXiv 2106.10199)."""

    form = "weights"

    kind: Literal["bitfit"] = "bitfit"


class FullUpdate(AdapterSpec):
    """Every weight of the model is trained."""

    form = "weights"
    every_weight = True

    kind: Literal["full"] = "full"


def _rising(blocks: tuple[int, ...]) -> tuple[int, ...]:
    if list(blocks) != sorted(set(blocks)):
        raise ValueError("blocks must rise")
    return blocks


class Steering(AdapterSpec):
    """A vector added to what each of `blocks` gives on, of every block if None (arXiv 2505.18706)."""

    form = "hidden states"

    kind: Literal["steering"] = "steering"
    blocks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_rising)] | None = None

    @property
    def label(self) -> str:
        """Its kind and blocks."""
        return self.kind if self.blocks is None else f"{self.kind} {','.join(map(str, self.blocks))}"


Adapter = Annotated[
    NoAdapter | TinyLora | LoraXs | Lora | Vera | VbLora | UniLora | BitFit | FullUpdate | Steering,
    Field(discriminator="kind"),
]


StorageDtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "entropy"]
