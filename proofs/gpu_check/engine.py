"""A run through vLLM's own build for the device, if it is installed.

No step may sample from a stale update, and the last step must be provably fresh. The first cannot be, because its
update is zero.
"""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

from capacity.plan.sampling import with_rollouts
from capacity.spec.parts import RolloutSpec
from capacity.spec.run import RunSpec
from capacity.training.base import Bases
from capacity.training.run import execute
from proofs.gpu_check.finding import Finding, Verdict, tried
from proofs.gpu_check.training import faults

PART = "vLLM"


def fresh(spec: RunSpec, loaded: Bases) -> Iterator[Finding]:
    """Trains a run whose samples a vLLM engine draws."""
    if find_spec("vllm") is None:
        yield Finding.not_run(PART, "rollouts", "not installed")
        return
    yield from tried(PART, "rollouts", partial(_sampled, with_rollouts(spec, RolloutSpec()), loaded))


def _sampled(spec: RunSpec, loaded: Bases) -> list[Finding]:
    record = execute(spec, loaded.device, bases=loaded)
    found = faults(spec, record)
    seen = [step.freshness for step in record.steps]
    proven: Verdict = "ok" if seen[-1] == "fresh" and "stale" not in seen else "fault"
    kl = max(step.kl_to_sampler_bits or 0.0 for step in record.steps)
    limit = spec.rollouts.kl_warning if spec.rollouts is not None else 0.0
    return [
        Finding(
            PART, f"record of {record.result.engine}", "; ".join(found) or "whole", "whole", "fault" if found else "ok"
        ),
        Finding(PART, "samples of each step", ", ".join(map(str, seen)), "last fresh, none stale", proven),
        Finding(PART, "KL to the sampler", f"{kl:.2g} bits", f"≤ {limit:g} bits", "ok" if kl <= limit else "fault"),
    ]
