"""Adapter specs say which update a run trains.

Each kind of adapter has a class here, its sizes in `capacity.plan.kinds` and its build in `capacity.adapters.kinds`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from capacity.spec.frozen import Frozen

Form = Literal["none", "low-rank", "weights", "hidden states"]
Sharing = Literal["tiled", "structured"]
Scaling = Literal["paper", "split"]
Allocation = Literal["even", "gradient"]
Projection = Literal["random", "chosen"]
CHOSEN = "-chosen"  # ends the name of the rates of adapters with a chosen projection
Chooser = Literal["own", "rft", "grpo"]


class AdapterSpec(Frozen):
    """The base class of adapter specs states what other modules need to know about a kind of update.

    Class attributes:
        form: what the update changes. "low-rank" means a product B A in each adapted linear module. An engine loads
            such an update as a LoRA adapter. "weights" means the model's own weights. Such an update can only be
            merged. "hidden states" means the outputs of blocks. Such an update can be neither loaded as a LoRA adapter
            nor merged. "none" means that there is no update.
        every_weight: True if the update trains every weight of the model.
        keeps: what the gradient of the update needs of each adapted module in fp32. A trained A needs the "inputs". A
            trained scale of what B gives needs these "outputs".
        seed_field: the field that holds the seed of the adapter's random parts; None if it has none. It is set to the
            seed of the run, so each seed draws its own random parts.
    """

    form: ClassVar[Form]
    every_weight: ClassVar[bool] = False
    keeps: ClassVar[Literal["nothing", "inputs", "outputs"]] = "nothing"
    seed_field: ClassVar[str | None] = None

    kind: str

    @property
    def label(self) -> str:
        """Returns the kind and size of the adapter for progress lines and tables."""
        return self.kind

    @property
    def tuned_as(self) -> str:
        """Returns the name under which the learning rate of this adapter is looked up."""
        return self.kind

    @property
    def choice_bits(self) -> int:
        """Returns the bits that choose the projection of each trained parameter, 0 if nothing is chosen."""
        return 0

    def seeded(self, seed: int) -> Self:
        """Returns the same adapter with the random parts that belong to `seed`."""
        return self if self.seed_field is None else self.model_copy(update={self.seed_field: seed})


class NoAdapter(AdapterSpec):
    """The untrained model has no adapter."""

    form = "none"

    kind: Literal["none"] = "none"


class Injected(AdapterSpec):
    """An injected adapter is attached to linear modules.

    `targets` lists the types of the adapted modules ("q_proj", …). If it is None, all linear modules are adapted.
    """

    form = "low-rank"

    targets: tuple[str, ...] | None = None
    rank: PositiveInt

    @property
    def label(self) -> str:
        """Returns the kind and rank of the adapter."""
        return f"{self.kind} r={self.rank}"


class Factored(Injected):
    """A factored adapter trains a matrix between the frozen SVD factors of each weight.

    `scaling` says where the singular values Σ stand. "paper" gives U Σ R Vᵀ; "split" gives U √Σ R √Σ Vᵀ.
    """

    scaling: Scaling = "paper"

    @property
    def tuned_as(self) -> str:
        """Returns the kind, followed by the scaling unless that is "paper".

        At one learning rate, another scaling makes other steps. So each scaling has its own tuned rates.
        """
        return self.kind if self.scaling == "paper" else f"{self.kind}-{self.scaling}"


class ProjectionChoice(Frozen):
    """Says how the matrices P of a TinyLoRA are chosen among random candidates, by the gradient at θ = 0.

    Each entry of v has 2^bits candidates. The gradient is that of the method `by`, "own" for that of the run. It is
    measured on the first `batches` batches of prompts. Demonstrations never choose for a method that does not see them:
    so `by` cannot be "sft", unless it is the run's own.
    """

    bits: Annotated[int, Field(ge=0, le=16)]
    by: Chooser = "grpo"
    batches: PositiveInt = 8


class TinyLora(Factored):
    """TinyLoRA is ΔW = U Σ (Σᵢ vᵢ Pᵢ) Vᵀ, where each group of modules shares one v ∈ Rᵘ.

    The formula is equation 3 of arXiv 2602.04118. There are `groups` groups, so there are groups · u entries of v.

    `allocation` says how the entries are dealt to the groups. "even" gives every group u entries. "gradient" deals them
    by the gradients of the groups at θ = 0. These are measured on `allocation_batches` batches of the run's own method.

    `choice` says how P is chosen. If it is None, P is random, as in the paper.
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
    choice: ProjectionChoice | None = None

    @model_serializer(mode="wrap")
    def _without_absent_choice(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves `choice` out of the JSON if it is None, so that specs keep the identity that they had before it."""
        fields: dict[str, Any] = handler(self)
        if self.choice is None:
            fields.pop("choice", None)
        return fields

    @property
    def choice_bits(self) -> int:
        """Returns the bits that choose the P of each entry, 0 if P is random."""
        return 0 if self.choice is None else self.choice.bits

    @property
    def label(self) -> str:
        """Returns the number of trained parameters, groups · u, and the bits of the choice if there is one."""
        parameters = self.groups * self.u
        return str(parameters) if self.choice is None else f"{parameters} + {parameters * self.choice_bits} bits"

    @property
    def tuned_as(self) -> str:
        """Returns the name of the kind, its scaling, and "chosen" if P is chosen: such steps are larger."""
        return super().tuned_as if self.choice is None else super().tuned_as + CHOSEN


class LoraXs(Factored):
    """LoRA-XS is ΔW = U Σ R Vᵀ with a trained r × r matrix R for each module (arXiv 2405.17604)."""

    kind: Literal["lora-xs"] = "lora-xs"


class Lora(Injected):
    """LoRA is ΔW = B A, where both factors are trained (arXiv 2106.09685).

    A starts uniform in ±1/√k, where k is the input width of the module, and is drawn from `init_seed`. B starts at
    zero.
    """

    keeps = "inputs"
    seed_field = "init_seed"

    kind: Literal["lora"] = "lora"
    init_seed: NonNegativeInt


class Vera(Injected):
    """VeRA is ΔW = Λ_b B Λ_d A, where the diagonals Λ_b and Λ_d are trained (arXiv 2310.11454).

    A and B are random, frozen and shared by all modules. PEFT builds the adapter.
    """

    keeps = "outputs"
    seed_field = "projection_seed"

    kind: Literal["vera"] = "vera"
    projection_seed: NonNegativeInt


class VbLora(Injected):
    """VB-LoRA is LoRA whose A and B are composed of vectors from one trained bank (arXiv 2405.15179).

    Every `vector_length` entries of A and B are a mixture of the `topk` best of `vectors` bank vectors. The update is
    not zero at the start. PEFT builds the adapter.
    """

    keeps = "inputs"
    seed_field = "init_seed"

    kind: Literal["vb-lora"] = "vb-lora"
    vectors: PositiveInt
    vector_length: PositiveInt
    topk: PositiveInt = 2
    init_seed: NonNegativeInt


class UniLora(Injected):
    """Uni-LoRA is LoRA whose entries are dealt at random from one trained vector (arXiv 2506.00799).

    The vector has `length` entries. The update is not zero at the start. PEFT builds the adapter.
    """

    keeps = "inputs"
    seed_field = "projection_seed"

    kind: Literal["uni-lora"] = "uni-lora"
    length: PositiveInt
    projection_seed: NonNegativeInt


class BitFit(AdapterSpec):
    """BitFit trains every bias of the model and nothing else (arXiv 2106.10199)."""

    form = "weights"

    kind: Literal["bitfit"] = "bitfit"


class FullUpdate(AdapterSpec):
    """Full fine-tuning trains every weight of the model."""

    form = "weights"
    every_weight = True

    kind: Literal["full"] = "full"


def _rising(blocks: tuple[int, ...]) -> tuple[int, ...]:
    if list(blocks) != sorted(set(blocks)):
        raise ValueError("blocks must rise")
    return blocks


class Steering(AdapterSpec):
    """Steering trains a vector that is added to the output of each of `blocks` (arXiv 2505.18706).

    If `blocks` is None, every block gets its own vector. Each vector has the width of the model.
    """

    form = "hidden states"

    kind: Literal["steering"] = "steering"
    blocks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_rising)] | None = None

    @property
    def label(self) -> str:
        """Returns the kind and, if they are chosen, the blocks."""
        return self.kind if self.blocks is None else f"{self.kind} {','.join(map(str, self.blocks))}"


Adapter = Annotated[
    NoAdapter | TinyLora | LoraXs | Lora | Vera | VbLora | UniLora | BitFit | FullUpdate | Steering,
    Field(discriminator="kind"),
]


StorageDtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "entropy"]
