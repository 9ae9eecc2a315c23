"""What a run will cost before it is made: arithmetic, GPU-hours and memory, from shapes and the spec. No torch.

Unless told otherwise every completion is taken to be as long as the spec allows, so these are upper estimates; memory
always is. A backward pass takes one sequence at a time unless told otherwise; training takes a whole step at once
today. GPU-hours are for one GPU that does 312 TFLOP/s in bf16 (an A100), of which training reaches two fifths and
sampling through transformers a twentieth.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from capacity.config import SEES_DEMONSTRATIONS, FullUpdate, RunSpec
from capacity.models.aliases import model_shape
from capacity.models.memory import MemoryPlan, memory_plan
from capacity.models.names import parse_model

PEAK_FLOPS = 312e12
TRAINING_SHARE, SAMPLING_SHARE = 0.4, 0.05
PROMPT_TOKENS = 256
_SAMPLED_AT_ONCE = 64


@dataclass(frozen=True)
class RunEstimate:
    """`sampling_flops` and `training_flops`: of rollouts and evaluation, and of the steps; `memory`: at its widest."""

    sampling_flops: float
    training_flops: float
    memory: MemoryPlan

    @property
    def gpu_hours(self) -> float:
        """On one A100."""
        seconds = self.sampling_flops / SAMPLING_SHARE + self.training_flops / TRAINING_SHARE
        return seconds / PEAK_FLOPS / 3600


def run_estimate(
    spec: RunSpec,
    trained: int,
    prompt_tokens: int = PROMPT_TOKENS,
    completion_tokens: int | None = None,
    *,
    whole_steps: bool = False,
) -> RunEstimate:
    """The cost of one run.

    Args:
        spec: the run.
        trained: parameters of its update.
        prompt_tokens: of a prompt.
        completion_tokens: of a usual completion; as many as the spec allows if None.
        whole_steps: a backward pass takes all sequences of a step, as training does today.
    """
    (_, shape), name = model_shape(spec.model), parse_model(spec.model)
    forward = 2 * shape.parameters
    evaluation = spec.evaluation

    def tokens(most: int) -> int:
        return prompt_tokens + min(most, completion_tokens or most)

    sampled = evaluation.items * evaluation.samples_per_item * tokens(evaluation.max_new_tokens)
    trained_tokens, longest, per_step = 0, evaluation.max_new_tokens, 0
    full = isinstance(spec.adapter, FullUpdate)
    if spec.training is not None:
        training = spec.training
        per_step = training.prompts_per_step * training.samples_per_prompt
        trained_tokens = training.steps * per_step * tokens(training.max_new_tokens)
        own = 0.5 if spec.method == "sft+grpo" else float(spec.method not in SEES_DEMONSTRATIONS)
        sampled += int(own * trained_tokens)
        longest = max(longest, training.max_new_tokens)
    return RunEstimate(
        sampling_flops=forward * sampled,
        training_flops=forward * trained_tokens * (4 if full else 3),  # forward, backward, and the base for its KL
        memory=memory_plan(
            shape,
            trained=trained,
            sequences=min(_SAMPLED_AT_ONCE, evaluation.items),
            micro_batch=per_step if whole_steps else min(1, per_step),
            prompt_tokens=prompt_tokens,
            new_tokens=longest,
            dtype=name.dtype,
            quantised=name.quantised,
            full=full,
        ),
    )


@dataclass(frozen=True)
class StudyEstimate:
    """Sums over runs, and the memory of the largest."""

    runs: int
    gpu_hours: float
    peak_bytes: int


def study_estimate(estimates: Iterable[RunEstimate]) -> StudyEstimate:
    """The cost of several runs."""
    found = list(estimates)
    peak = max((e.memory.peak for e in found), default=0)
    return StudyEstimate(len(found), sum(e.gpu_hours for e in found), peak)
