"""Which runs of a study share their passes. No torch.

Several runs on one base go through the model together: their tokens share the frozen weights, each has its own update.
On a GPU that fills the device; on one CPU core it gains nothing, because products of many rows are no faster a row.
"""

from collections.abc import Sequence
from itertools import groupby

from capacity.errors import SpecError
from capacity.plan.memory import CPU_PASS_BYTES, GPU_SHARE, HEADROOM, PROMPT_TOKENS, run_memory, step_rows
from capacity.plan.model_names import parse_model
from capacity.spec.frozen import canonical_json
from capacity.spec.run import RunSpec

MOST = 16  # runs together by default on a GPU; more fill no device better


def shares_passes(spec: RunSpec) -> bool:
    """Tells whether a run can share its passes with others: a low-rank update whose samples are the model's own."""
    quantised = parse_model(spec.model).quantised is not None
    return spec.training is not None and spec.adapter.form == "low-rank" and spec.rollouts is None and not quantised


def fitting(spec: RunSpec, device_bytes: int | None, prompt_tokens: int = PROMPT_TOKENS) -> int:
    """Returns how many runs like this one fit together, each with its whole step in one pass; at least 1.

    Args:
        spec: the run.
        device_bytes: memory of the GPU; None on a CPU, where the passes share what one pass may take.
        prompt_tokens: length of the longest prompt.
    """
    plan = run_memory(spec, rows=step_rows(spec), sampled=step_rows(spec), prompt_tokens=prompt_tokens)
    each = max(plan.activations + plan.logits, plan.cache)
    if device_bytes is None:
        return max(1, int(CPU_PASS_BYTES // each))
    return max(1, int((GPU_SHARE * device_bytes / HEADROOM - plan.weights) // (each + plan.update)))


def jobs(
    specs: Sequence[RunSpec], together: int | None, device_bytes: int | None, workers: int = 1
) -> list[tuple[RunSpec, ...]]:
    """Divides runs into jobs, each for one worker, in the order of the runs.

    Runs of the untrained model that differ in temperature and seed alone are one job, because each prompt is then read
    once. Trained runs on one model are dealt to jobs of at most `together` runs.

    Args:
        specs: the runs.
        together: the largest number of trained runs of a job. If None, it is one on a CPU. On a GPU it is what fits,
            at most 16, and leaves a job for every worker.
        device_bytes: memory of the GPU that one worker may take; None on a CPU.
        workers: the number of workers.

    Raises:
        SpecError: if so many runs do not fit.
    """
    sharing = [spec for spec in specs if shares_passes(spec)]
    if together is not None and together > 1:
        for spec in sharing:
            fits = fitting(spec, device_bytes)
            if together > fits:
                raise SpecError(
                    f"--together {together} does not fit: at most {fits} runs like {spec.label} fit at once"
                )
    found: list[tuple[RunSpec, ...]] = []
    for _, alike in groupby(specs, key=_kind):
        runs = list(alike)
        most = len(runs) if runs[0].method == "base" else 1
        if shares_passes(runs[0]):
            each = -(-len(runs) // workers)
            most = together or (
                1 if device_bytes is None else min(MOST, each, *(fitting(r, device_bytes) for r in runs))
            )
        found += [tuple(runs[i : i + most]) for i in range(0, len(runs), most)]
    return found


def base_first(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """Returns runs with those of each untrained model before the first other run on that model.

    A study that is interrupted then knows the gains of the runs that it has. Runs on one model stay together, because a
    worker keeps the model of its last run. The order changes no result.
    """
    bases: dict[str, list[RunSpec]] = {}
    for spec in specs:
        if spec.method == "base":
            bases.setdefault(spec.model, []).append(spec)
    found: list[RunSpec] = []
    for spec in specs:
        found += bases.pop(spec.model, [])
        if spec.method != "base":
            found.append(spec)
    return found


def _kind(spec: RunSpec) -> str:
    """Returns a text that neighbouring runs of one job have in common."""
    if spec.method == "base" and spec.rollouts is None:
        protocol = spec.evaluation.model_copy(update={"temperature": 0.0, "draws": "common"})
        return canonical_json(spec.model_copy(update={"evaluation": protocol, "seed": 0}).model_dump(mode="json"))
    return spec.model if shares_passes(spec) else spec.identity
