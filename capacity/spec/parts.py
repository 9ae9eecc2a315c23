"""A run spec has parts for its task, its training, its rollouts and its evaluation."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from capacity.spec.adapters import Form
from capacity.spec.frozen import Frozen

# The libraries of training take seeds below this limit.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Match = Literal["prompts", "sequences", "tokens"]
Sync = Literal["hot-swap", "merged"]
Draws = Literal["seed", "common"]
Correction = Literal["none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"]


def _joined(options: dict[str, float | str]) -> str:
    return "".join(f"&{name}={str(value).removesuffix('.0')}" for name, value in sorted(options.items()))


_OF_DEMONSTRATIONS = ("style_bits", "style_shift")  # the options of a task that only its demonstrations have


class TaskSpec(Frozen):
    """A task spec names a task and the demonstrations that `sft` learns from.

    `demonstrations` is "none" for methods that see no demonstrations.
    """

    name: str
    demonstrations: str
    options: dict[str, float | str] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """Returns the text that `parse_task` reads, such as "abacus?demonstrations=worked&style_bits=4"."""
        return f"{self.name}?demonstrations={self.demonstrations}{_joined(self.options)}"

    @property
    def problems(self) -> str:
        """Returns the task without its demonstrations, such as "gsm8k?template=boxed"."""
        others = {name: value for name, value in self.options.items() if name not in _OF_DEMONSTRATIONS}
        return f"{self.name}?{_joined(others)[1:]}" if others else self.name

    @property
    def style(self) -> str:
        """Returns the demonstrations with their options, such as "worked&style_bits=4"."""
        own = {name: value for name, value in self.options.items() if name in _OF_DEMONSTRATIONS}
        return self.demonstrations + _joined(own)

    def unseen(self) -> "TaskSpec":
        """Returns the task as it is for a method that sees no demonstrations.

        The demonstrations are then no part of the identity of the run.
        """
        others = {name: value for name, value in self.options.items() if name not in _OF_DEMONSTRATIONS}
        return TaskSpec(name=self.name, demonstrations="none", options=others)


class TrainingSpec(Frozen):
    """Says how an update is trained. The runs of a pair differ in nothing here but the learning rate.

    Each step sees `prompts_per_step` prompts and `samples_per_prompt` sequences for each prompt. The sequences are own
    samples (grpo, rft) or demonstrations (sft), of at most `max_new_tokens` tokens. The optimiser is Adam without
    weight decay. The learning rate rises linearly for `warmup_steps` steps and then falls linearly to zero.

    `match` says what the runs of a pair have in common beside the number of steps.

    Values of `match`:
        "prompts": the runs see the same prompts in the same order, and equally many sequences.
        "sequences": the runs see equally many sequences, but each demonstration of sft has a prompt of its own.
        "tokens": the runs draw the same prompts, but a step trains on only some of them, at least one. It takes as many
            as keep the mean over all steps so far within `tokens_per_step` completion tokens.
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
    """`rft` and `rft-online` train on samples drawn at `temperature` that the grader passes."""

    temperature: Annotated[float, Field(gt=0)] = 1.0


class WarmStartSpec(Frozen):
    """`sft+grpo` trains the first half of its steps by sft, at `learning_rate`.

    Each half has its own warm-up and decay.
    """

    learning_rate: Annotated[float, Field(gt=0)]


class GrpoSpec(Frozen):
    """GRPO trains with these settings.

    Advantages are centred by the mean and scaled by the standard deviation of their group. The loss type is "grpo", and
    the weight of the KL term is 0.

    Every `base_every`-th step, and the last one, measures the base on the samples of the step: the KL divergence from
    it, and its code length. That changes nothing in what is trained.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    loss: Literal["grpo"] = "grpo"
    epsilon: float = 0.2
    scale_rewards: Literal["group"] = "group"
    advantage_epsilon: float = 1e-4
    kl_to_base_weight: Literal[0] = 0
    base_every: PositiveInt = 1

    @model_serializer(mode="wrap")
    def _without_the_usual_measurement(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves `base_every` out of the JSON if it is 1, so that specs keep the identity that they had before it."""
        fields: dict[str, Any] = handler(self)
        if self.base_every == 1:
            fields.pop("base_every")
        return fields


class RolloutSpec(Frozen):
    """Says that an engine other than the trainer's own model draws the samples in training and evaluation.

    Attributes:
        engine: the name of the engine.
        sync: how the engine follows the update. "hot-swap" loads it anew each step as a LoRA adapter beside the frozen
            weights. "merged" adds it to the weights in fp32, rounds once to the dtype of the engine, and sends all
            weights.
        dtype: the dtype of the weights of the engine; that of the trainer if None.
        correction: how each token's loss is weighted by p_trainer / p_sampler. See `capacity.training.importance`.
        cap: the largest such weight.
        kl_warning: a KL divergence to the sampler above this limit gives a warning, in bits per token.
    """

    engine: Literal["vllm"] = "vllm"
    sync: Sync = "hot-swap"
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    correction: Correction = "token-truncate"
    cap: Annotated[float, Field(gt=1)] = 2.0
    kl_warning: Annotated[float, Field(gt=0)] = 0.05


# How an engine can follow an update of each form, the best way first.
SYNCS: dict[Form, tuple[Sync, ...]] = {
    "none": ("hot-swap", "merged"),
    "low-rank": ("hot-swap", "merged"),
    "weights": ("merged",),
    "hidden states": (),
}


class EvaluationSpec(Frozen):
    """The protocol of an evaluation: `samples_per_item` completions are drawn for each of `items` items of `split`.

    A `temperature` of 0 means greedy decoding, which draws nothing. Otherwise each completion is drawn from uniform
    numbers. `draws` says what these follow from, beside `seed`, the item and the sample:
        "seed": the seed of the run. Runs of one seed are paired by item, and the draw averages out over seeds.
        "common": nothing else. All runs share one draw, and no number of seeds averages its error out.
    """

    split: Literal["validation", "test"]
    items: PositiveInt
    samples_per_item: PositiveInt = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
    draws: Draws = "common"

    @model_validator(mode="after")
    def _draws_belong_to_a_temperature(self) -> "EvaluationSpec":
        if self.draws == "seed" and self.temperature == 0:
            raise ValueError('at temperature 0 nothing is drawn: draws "seed" belongs to temperatures above 0')
        return self

    @model_serializer(mode="wrap")
    def _without_common_draws(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves `draws` out of the JSON if it is "common", so that specs keep the identity that they had before it."""
        fields: dict[str, Any] = handler(self)
        if self.draws == "common":
            fields.pop("draws")
        return fields
