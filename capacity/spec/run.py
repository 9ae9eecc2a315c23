"""Frozen specs: what a run is. Everything here takes part in a run's identity; nothing else does.

A run = model × task × method × adapter × learning rate × seed under one protocol. Its identity is the SHA-256 of
the canonical JSON of its spec, so workers, paths and devices never change it.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from capacity.errors import DataError

SCHEMA_VERSION = 3
Method = Literal["base", "sft", "rft", "rft-online", "grpo", "random-reward", "sft+grpo"]
METHODS: tuple[Method, ...] = ("base", "sft", "rft", "rft-online", "grpo", "random-reward", "sft+grpo")
USES_GRPO: tuple[Method, ...] = ("grpo", "random-reward", "sft+grpo")
USES_RFT: tuple[Method, ...] = ("rft", "rft-online")
SEES_DEMONSTRATIONS: tuple[Method, ...] = ("sft", "sft+grpo")
Match = Literal["prompts", "sequences", "tokens"]
Correction = Literal["none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"]


class Frozen(BaseModel):
    """Immutable; unknown fields are errors; numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


def _joined(options: dict[str, float | str]) -> str:
    return "".join(f"&{name}={str(value).removesuffix('.0')}" for name, value in sorted(options.items()))


_OF_DEMONSTRATIONS = ("style_bits", "style_shift")  # the options of a task that only its demonstrations have


class TaskSpec(Frozen):
    """A task by name, with the demonstrations that `sft` learns from ("none" for methods that see none)."""

    name: str
    demonstrations: str
    options: dict[str, float | str] = {}

    @property
    def label(self) -> str:
        """What `parse_task` reads: "abacus?demonstrations=worked&style_bits=4"."""
        return f"{self.name}?demonstrations={self.demonstrations}{_joined(self.options)}"

    @property
    def problems(self) -> str:
        """The task without its demonstrations: "gsm8k?template=boxed"."""
        others = {name: value for name, value in self.options.items() if name not in _OF_DEMONSTRATIONS}
        return f"{self.name}?{_joined(others)[1:]}" if others else self.name

    @property
    def style(self) -> str:
        """The demonstrations with their options: "worked&style_bits=4"."""
        own = {name: value for name, value in self.options.items() if name in _OF_DEMONSTRATIONS}
        return self.demonstrations + _joined(own)

    def unseen(self) -> "TaskSpec":
        """The task for a method that sees no demonstrations, so that they are no part of its runs' identity."""
        others = {name: value for name, value in self.options.items() if name not in _OF_DEMONSTRATIONS}
        return TaskSpec(name=self.name, demonstrations="none", options=others)


class TrainingSpec(Frozen):
    """How an update is trained. The arms of a pair differ in nothing here but the learning rate.

    Each step sees `prompts_per_step` prompts and `samples_per_prompt` sequences of each: own samples (grpo, rft) or
    demonstrations (sft), of at most `max_new_tokens` tokens. Adam without weight decay; the rate rises linearly
    for `warmup_steps` and falls linearly to zero at the end.

    `match` says what the arms of a pair have in common beside the steps. "prompts": the same prompts in the same order
    and equally many sequences. "sequences": as many sequences, but each demonstration of sft has a prompt of its own.
    "tokens": the same prompts are drawn, but each step trains on the sequences of only so many of them that the run
    has had `tokens_per_step` completion tokens a step so far.
    """

    match: Match = "prompts"
    tokens_per_step: PositiveInt | None = None
    steps: PositiveInt
    prompts_per_step: PositiveInt
    samples_per_prompt: Annotated[int, Field(ge=2)]
    max_new_tokens: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["linear"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)]
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0

    @model_validator(mode="after")
    def _tokens_belong_to_their_match(self) -> "TrainingSpec":
        if (self.tokens_per_step is not None) != (self.match == "tokens"):
            raise ValueError('tokens_per_step belongs to match "tokens", and only there')
        return self


class RftSpec(Frozen):
    """Where `rft` and `rft-online` get their sequences: own samples at `temperature` that the grader passes."""

    temperature: Annotated[float, Field(gt=0)] = 1.0


class WarmStartSpec(Frozen):
    """The first half of the steps of `sft+grpo`: sft at this rate. Each half has its own warm-up and decay."""

    learning_rate: Annotated[float, Field(gt=0)]


class GrpoSpec(Frozen):
    """GRPO's own settings: advantages by group mean and standard deviation, loss type "grpo", KL weight 0."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    loss: Literal["grpo"] = "grpo"
    epsilon: float = 0.2
    scale_rewards: Literal["group"] = "group"
    advantage_epsilon: float = 1e-4
    kl_to_base_weight: Literal[0] = 0


class RolloutSpec(Frozen):
    """Samples, in training and evaluation, come from another engine than the trainer's own model.

    `sync` says how that engine follows the update: "hot-swap" loads it anew each step as a LoRA adapter beside the
    frozen weights; "merged" adds it to them in fp32, rounds once to the engine's dtype, and sends all of them.
    `dtype`: of the engine's weights, the trainer's if None. `correction` weights each token's loss by p_trainer /
    p_sampler, bounded by `cap` (see `capacity.training.importance`). KL to the sampler above `kl_warning` bits a token
    is warned about.
    """

    engine: Literal["vllm"] = "vllm"
    sync: Literal["hot-swap", "merged"] = "hot-swap"
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    correction: Correction = "token-truncate"
    cap: Annotated[float, Field(gt=1)] = 2.0
    kl_warning: Annotated[float, Field(gt=0)] = 0.05


class EvaluationSpec(Frozen):
    """The protocol of an evaluation: `samples_per_item` completions of each of `items` items of `split`.

    `temperature` 0 is greedy. Every run draws from the same uniforms (from `seed`), so runs are paired by item.
    """

    split: Literal["validation", "test"]
    items: PositiveInt
    samples_per_item: PositiveInt = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0


class RunSpec(Frozen):
    """One run. `training` is absent for method "base", which has no adapter; each method has its own parts."""

    schema_version: Literal[3] = 3
    model: str
    task: TaskSpec
    method: Method
    adapter: Adapter
    storage_dtype: StorageDtype
    training: TrainingSpec | None
    grpo: GrpoSpec | None = None
    rft: RftSpec | None = None
    warm_start: WarmStartSpec | None = None
    evaluation: EvaluationSpec
    seed: Annotated[int, Field(ge=0)]
    rollouts: RolloutSpec | None = None

    @model_serializer(mode="wrap")
    def _without_absent_rollouts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs that sample from the trainer's own model keep the JSON, and so the identity, that they always had."""
        fields: dict[str, Any] = handler(self)
        if self.rollouts is None:
            fields.pop("rollouts")
        return fields

    @model_validator(mode="after")
    def _parts_belong_to_the_method(self) -> "RunSpec":
        trains = self.method != "base"
        if (self.training is not None) != trains or (self.adapter.kind != "none") != trains:
            raise ValueError(f'method "{self.method}" {"needs" if trains else "has no"} training and adapter')
        parts = {"grpo": USES_GRPO, "rft": USES_RFT, "warm_start": ("sft+grpo",)}
        for part, methods in parts.items():
            if (getattr(self, part) is not None) != (self.method in methods):
                raise ValueError(f"the {part} part belongs to {', '.join(methods)}, and only there")
        if (self.task.demonstrations == "none") != (self.method not in SEES_DEMONSTRATIONS):
            raise ValueError(
                f'method "{self.method}" and demonstrations "{self.task.demonstrations}" do not go together'
            )
        whole = self.adapter.kind in ("full", "bitfit")
        if self.rollouts is not None and self.rollouts.sync == "hot-swap" and whole:
            raise ValueError(f'an update of kind {self.adapter.kind} is no LoRA adapter: its rollouts are "merged"')
        if self.method == "sft+grpo" and self.training is not None and self.training.steps < 2:
            raise ValueError("sft+grpo takes at least two steps")
        return self

    def canonical_json(self) -> str:
        """The spec as JSON with sorted keys and no spaces: what the identity is the hash of."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def identity(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def short_id(self) -> str:
        """The first 16 hex digits of the identity: the name of the run's folder."""
        return self.identity[:16]

    @property
    def label(self) -> str:
        """A short description for progress lines and tables."""
        match self.adapter:
            case TinyLora(groups=groups, u=u):
                size = f" {groups * u}"
            case FullUpdate() | BitFit():
                size = f" {self.adapter.kind}"
            case LoraXs() | Lora() | Vera() | VbLora() | UniLora():
                size = f" {self.adapter.kind} r={self.adapter.rank}"
            case _:
                size = f" T={self.evaluation.temperature:g}"
        return f"{self.method}{size} seed {self.seed}"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII only; NaN and infinities are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has more adapters and gave tinylora `targets` and `allocation`, whose defaults are version 1's ways."""
    return {**raw, "schema_version": 2}


def _from_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 3 knows more methods, and names the demonstrations only of methods that see them.

    The abacus of version 2 had no fillers, and its worked demonstrations reversed the odds of all words.
    """
    task = {**raw["task"], "options": {}}
    if raw["method"] not in SEES_DEMONSTRATIONS:
        task["demonstrations"] = "none"
    elif task["demonstrations"] == "worked":
        task["options"] = {"style_bits": 0.0, "style_shift": 4.857359312880716}
    return {**raw, "schema_version": 3, "task": task}


# Schema version v → the function that turns a stored spec of version v into one of version v + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}


def load_spec(raw: Any, where: str) -> RunSpec:
    """A stored spec, migrated to the current schema.

    Args:
        raw: the decoded JSON, whatever it is.
        where: the file it came from, for the error.

    Raises:
        DataError: not a spec, or of a version this program does not know.
    """
    if not isinstance(raw, dict):
        raise DataError(f"{where}: not a spec")
    version = raw.get("schema_version")
    while isinstance(version, int) and version != SCHEMA_VERSION and version in MIGRATIONS:
        try:
            raw = MIGRATIONS[version](raw)
        except (KeyError, TypeError):
            raise DataError(f"{where}: not a valid spec of schema version {version}") from None
        version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{where}: spec of schema version {version}, this program reads {SCHEMA_VERSION}")
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{where}: not a valid spec: {place}: {first['msg']}") from None
