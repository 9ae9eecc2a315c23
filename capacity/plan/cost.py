"""What a run will cost before it is made: arithmetic, GPU-hours and memory, from shapes and the spec. No torch.

Unless told otherwise every completion is taken to be as long as the spec allows, so these are upper estimates; memory
always is. GPU-hours and memory are for one A100 with 80 GB, unless told otherwise. It has 312 TFLOP/s in bf16. Training
reaches two fifths of them, and sampling through transformers a twentieth.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from capacity.plan.grid import grid_points
from capacity.plan.memory import (
    PROMPT_TOKENS,
    MemoryPlan,
    advice,
    rows_that_fit,
    run_memory,
    sampled_at_once,
    step_rows,
)
from capacity.plan.models import model_shape
from capacity.plan.study_file import StudyFile
from capacity.spec.adapters import TinyLora
from capacity.spec.methods import METHODS, Method
from capacity.spec.run import RunSpec

PEAK_FLOPS = 312e12
TRAINING_SHARE, SAMPLING_SHARE = 0.4, 0.05
GPU_BYTES = 80 * 10**9


@dataclass(frozen=True)
class RunEstimate:
    """What one run takes of a GPU's time and memory.

    Attributes:
        sampling_flops, training_flops: arithmetic of rollouts and evaluation, and of the steps. Batches that choose the
            projection count as steps do.
        rows: sequences of a step that go through the model at once on the GPU planned for; 0 if nothing is trained.
        memory: memory with as many sequences at a time as that GPU takes.
        least: memory with one sequence at a time, which a GPU must have.
    """

    sampling_flops: float
    training_flops: float
    rows: int
    memory: MemoryPlan
    least: MemoryPlan

    @property
    def gpu_hours(self) -> float:
        """Hours on one A100."""
        seconds = self.sampling_flops / SAMPLING_SHARE + self.training_flops / TRAINING_SHARE
        return seconds / PEAK_FLOPS / 3600


def run_estimate(
    spec: RunSpec,
    prompt_tokens: int = PROMPT_TOKENS,
    completion_tokens: int | None = None,
    *,
    device_bytes: int = GPU_BYTES,
) -> RunEstimate:
    """Estimates the cost of one run.

    Args:
        spec: the run.
        prompt_tokens: length of a prompt.
        completion_tokens: length of a usual completion; as many as the spec allows if None.
        device_bytes: memory of the GPU that is planned for.
    """
    _, shape = model_shape(spec.model)
    forward = 2 * shape.parameters
    evaluation, training = spec.evaluation, spec.training

    def tokens(most: int) -> int:
        return prompt_tokens + min(most, completion_tokens or most)

    evaluated = evaluation.items * evaluation.samples_per_item
    sampled = evaluated * tokens(evaluation.max_new_tokens)
    trained_tokens = 0
    if training is not None:
        of_batch = step_rows(spec) * tokens(training.max_new_tokens)
        trained_tokens = training.steps * of_batch
        phases = METHODS[spec.method].phases
        sampled += int(fmean(map(_samples, phases)) * trained_tokens)
        for phase, batches in _gradients_before(spec):
            measured = min(training.steps, batches) * of_batch
            sampled, trained_tokens = sampled + _samples(phase) * measured, trained_tokens + measured
    full = spec.adapter.every_weight
    least = run_memory(spec, prompt_tokens=prompt_tokens)
    rows = rows_that_fit(spec, device_bytes, prompt_tokens)
    together = min(max(evaluated, step_rows(spec)), sampled_at_once(least.cache, device_bytes))
    return RunEstimate(
        sampling_flops=forward * sampled,
        training_flops=forward * trained_tokens * (4 if full else 3),  # forward, backward, and the base for its KL
        rows=rows,
        memory=run_memory(spec, sampled=together, rows=rows, prompt_tokens=prompt_tokens),
        least=least,
    )


def _samples(phase: Method) -> bool:
    """Tells whether a method samples what it learns from."""
    return METHODS[phase].learns_from != "demonstrations"


def _gradients_before(spec: RunSpec) -> list[tuple[Method, int]]:
    """Returns whose gradients deal entries and choose projections before the training, each on how many batches."""
    adapter, found = spec.adapter, []
    first: Method = METHODS[spec.method].phases[0]
    if isinstance(adapter, TinyLora) and adapter.allocation == "gradient":
        found.append((first, adapter.allocation_batches))
    if isinstance(adapter, TinyLora) and adapter.choice is not None and adapter.choice.bits:
        chooser: Method = first if adapter.choice.by == "own" else adapter.choice.by
        found.append((chooser, adapter.choice.batches))
    return found


@dataclass(frozen=True)
class StudyEstimate:
    """What the runs of a study take together, and what the largest of them needs.

    Attributes:
        runs: their number.
        gpu_hours: hours of all runs on one A100.
        least_bytes: memory of the largest run, with one sequence at a time.
        peak_bytes: the most that a run takes on an A100, with as many sequences at a time as fit.
        advice: what to change if `least_bytes` are more than an A100 has; None if they are not.
    """

    runs: int
    gpu_hours: float
    least_bytes: int
    peak_bytes: int
    advice: str | None


def study_estimate(estimates: Iterable[RunEstimate]) -> StudyEstimate:
    """Adds up the cost of several runs."""
    found = list(estimates)
    largest = max(found, key=lambda e: e.least.peak, default=None)
    return StudyEstimate(
        runs=len(found),
        gpu_hours=sum(e.gpu_hours for e in found),
        least_bytes=0 if largest is None else largest.least.peak,
        peak_bytes=max((e.memory.peak for e in found), default=0),
        advice=None if largest is None else advice(largest.least, GPU_BYTES),
    )


def file_estimate(study: StudyFile) -> StudyEstimate:
    """The cost of the trained runs that a study file reports; learning rates make no difference to it.

    Raises:
        SpecError: a size that a model does not have.
    """
    rates = dict.fromkeys(METHODS, 1e-3)
    estimates = []
    for point in grid_points(study):
        for method in point.trained_methods:
            spec = point.spec(method, point.grid.seeds[0], rates, validation=False)
            estimates += [run_estimate(spec)] * len(point.grid.seeds)
    return study_estimate(estimates)
