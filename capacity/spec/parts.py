"""The parts of a spec beside its adapter: task, training, rollouts and evaluation."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from capacity.spec.adapters import Form
from capacity.spec.frozen import Frozen

Match = Literal["prompts", "sequences", "tokens"]
Sync = Literal["hot-swap", "merged"]
Correction = Literal["none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"]


def _joined(options: dict[str, float | str]) -> str:
    return "".join(f"&{name}={str(value).removesuffix('.0')}" for name, value in sorted(options.items()))


_OF_DEMONSTRATIONS = ("style_bits", "style_shift")  # the options of a task that only its demonstrations have


class TaskSpec(Frozen):
    """A task by name, with the demonstrations that `sft` learns from ("none" for methods that see none)."""

    name: str
    demonstrations: str
    options: dict[str, float | str] = Field(default_factory=dict)

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
    """The protocol of an evaluation: `samples_per_item` completions of each of `items` items of `split`.

    `temperature` 0 is greedy. Every run draws from the same uniforms (from `seed`), so runs are paired by item.
    """

    split: Literal["validation", "test"]
    items: PositiveInt
    samples_per_item: PositiveInt = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
