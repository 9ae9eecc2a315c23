"""What a run will cost before it is made: arithmetic, GPU-hours and memory, from shapes and the spec. No torch.

Unless told otherwise every completion is taken to be as long as the spec allows, so these are upper estimates; memory
always is. GPU-hours and memory are for one A100: 312 TFLOP/s in bf16, of which training reaches two fifths and sampling
through transformers a twentieth, and 80 GB unless told otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from capacity.plan.memory import PROMPT_TOKENS, MemoryPlan, advice, memory_plan, rows_at_once
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec

PEAK_FLOPS = 312e12
TRAINING_SHARE, SAMPLING_SHARE = 0.4, 0.05
GPU_BYTES = 80 * 10**9
_SAMPLED_AT_ONCE = 256


@dataclass(frozen=True)
class RunEstimate:
    """What one run takes.

    Attributes:
        sampling_flops, training_flops: of rollouts and evaluation, and of the steps.
        rows: of a step that go through the model at once on the GPU planned for; 0 if nothing is trained.
        memory: at the widest point, with as many rows.
        least: the same with one row at a time: what a GPU must have.
    """

    sampling_flops: float
    training_flops: float
    rows: int
    memory: MemoryPlan
    least: MemoryPlan

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
    device_bytes: int = GPU_BYTES,
) -> RunEstimate:
    """The cost of one run.

    Args:
        spec: the run.
        trained: parameters of its update.
        prompt_tokens: of a prompt.
        completion_tokens: of a usual completion; as many as the spec allows if None.
        device_bytes: memory of the GPU that is planned for.
    """
    (_, shape), name = model_shape(spec.model), parse_model(spec.model)
    forward = 2 * shape.parameters
    evaluation = spec.evaluation

    def tokens(most: int) -> int:
        return prompt_tokens + min(most, completion_tokens or most)

    sampled = evaluation.items * evaluation.samples_per_item * tokens(evaluation.max_new_tokens)
    trained_tokens, longest, per_step = 0, evaluation.max_new_tokens, 0
    full = spec.adapter.every_weight
    if spec.training is not None:
        training = spec.training
        per_step = training.prompts_per_step * training.samples_per_prompt
        trained_tokens = training.steps * per_step * tokens(training.max_new_tokens)
        phases = METHODS[spec.method].phases
        own = sum(METHODS[phase].learns_from != "demonstrations" for phase in phases) / len(phases)
        sampled += int(own * trained_tokens)
        longest = max(longest, training.max_new_tokens)
    plan = partial(
        memory_plan,
        shape,
        trained=trained,
        prompt_tokens=prompt_tokens,
        new_tokens=longest,
        dtype=name.dtype,
        quantised=name.quantised,
        full=full,
    )
    least = plan(sequences=1, micro_batch=min(1, per_step))
    fitting = rows_at_once(
        shape,
        prompt_tokens=prompt_tokens,
        new_tokens=longest,
        dtype=name.dtype,
        resident=least.weights + least.update,
        device_bytes=device_bytes,
    )
    rows = min(per_step, fitting)
    # What sampling and evaluation take at once, `capacity.sampling.evaluate.batch_size`: a quarter of the GPU's memory.
    sequences = max(1, min(_SAMPLED_AT_ONCE, evaluation.items, device_bytes // 4 // max(1, least.cache)))
    return RunEstimate(
        sampling_flops=forward * sampled,
        training_flops=forward * trained_tokens * (4 if full else 3),  # forward, backward, and the base for its KL
        rows=rows,
        memory=plan(sequences=sequences, micro_batch=rows),
        least=least,
    )


@dataclass(frozen=True)
class StudyEstimate:
    """Sums over runs, and the largest run: `least_bytes` with one row at a time, `advice` if that exceeds an A100.

    `peak_bytes`: the most that a run takes on it, with as many rows at a time as fit.
    """

    runs: int
    gpu_hours: float
    least_bytes: int
    peak_bytes: int
    advice: str | None


def study_estimate(estimates: Iterable[RunEstimate]) -> StudyEstimate:
    """The cost of several runs."""
    found = list(estimates)
    largest = max(found, key=lambda e: e.least.peak, default=None)
    return StudyEstimate(
        runs=len(found),
        gpu_hours=sum(e.gpu_hours for e in found),
        least_bytes=0 if largest is None else largest.least.peak,
        peak_bytes=max((e.memory.peak for e in found), default=0),
        advice=None if largest is None else advice(largest.least, GPU_BYTES),
    )
