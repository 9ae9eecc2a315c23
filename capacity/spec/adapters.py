"""The part of a spec that says which update is trained."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from capacity.spec.frozen import Frozen


class NoAdapter(Frozen):
    """The untrained model."""

    kind: Literal["none"] = "none"


class Injected(Frozen):
    """An adapter that sits on linear modules. `targets`: their types ("q_proj", …); all linear modules if None."""

    targets: tuple[str, ...] | None = None


class TinyLora(Injected):
    """ΔW = U Σ (Σᵢ vᵢ Pᵢ) Vᵀ with v ∈ Rᵘ tied over each of `groups` groups (arXiv 2602.04118, equation 3).

    `scaling` "paper" puts Σ on the left as the paper does; "split" uses U √Σ R √Σ Vᵀ. `allocation` "even" gives
    every group u entries; "gradient" deals the same groups · u entries by the groups' gradients at θ = 0, measured
    on `allocation_batches` batches of the run's own method.
    """

    kind: Literal["tinylora"] = "tinylora"
    rank: PositiveInt = 2
    u: PositiveInt
    groups: PositiveInt
    sharing: Literal["tiled", "structured"] = "tiled"
    scaling: Literal["paper", "split"] = "paper"
    allocation: Literal["even", "gradient"] = "even"
    allocation_batches: PositiveInt = 4
    projection_seed: Annotated[int, Field(ge=0)]


class LoraXs(Injected):
    """ΔW = U Σ R Vᵀ with a free r × r matrix R of each module (arXiv 2405.17604)."""

    kind: Literal["lora-xs"] = "lora-xs"
    rank: PositiveInt
    scaling: Literal["paper", "split"] = "paper"


class Lora(Injected):
    """ΔW = B A, both trained (arXiv 2106.09685); A starts uniform in ±1/√k, drawn from `init_seed`, B at zero."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt
    init_seed: Annotated[int, Field(ge=0)]


class Vera(Injected):
    """ΔW = Λ_b B Λ_d A with A and B random, frozen and shared by all modules (arXiv 2310.11454); PEFT's build."""

    kind: Literal["vera"] = "vera"
    rank: PositiveInt
    projection_seed: Annotated[int, Field(ge=0)]


class VbLora(Injected):
    """LoRA whose A and B are composed of vectors from one trained bank (arXiv 2405.15179); PEFT's build.

    Every `vector_length` entries of A and B are a mixture of the `topk` best of `vectors` bank vectors.
    The update is not zero at the start.
    """

    kind: Literal["vb-lora"] = "vb-lora"
    rank: PositiveInt
    vectors: PositiveInt
    vector_length: PositiveInt
    topk: PositiveInt = 2
    init_seed: Annotated[int, Field(ge=0)]


class UniLora(Injected):
    """LoRA whose entries are those of one trained vector of `length` entries, dealt at random (arXiv 2506.00799).

    PEFT's build. The update is not zero at the start.
    """

    kind: Literal["uni-lora"] = "uni-lora"
    rank: PositiveInt
    length: PositiveInt
    projection_seed: Annotated[int, Field(ge=0)]


class BitFit(Frozen):
    """Every bias that the model has is trained (arXiv 2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"


class FullUpdate(Frozen):
    """Every weight of the model is trained."""

    kind: Literal["full"] = "full"


Adapter = Annotated[
    NoAdapter | TinyLora | LoraXs | Lora | Vera | VbLora | UniLora | BitFit | FullUpdate, Field(discriminator="kind")
]


StorageDtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "entropy"]
