"""Measures what a checkpoint costs: its bytes and the time of a save, beside the hash of the frozen weights.

python proofs/checkpoint_cost.py [--model abacus-0.9m] [--steps 5]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from capacity.models.weights_digest import weights_digest
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.runs import study_folder
from capacity.spec.run import RunSpec
from capacity.studies.quiet import quiet
from capacity.tasks.catalog import parse_task
from capacity.training.base import Bases
from capacity.training.checkpoints import Checkpoints
from capacity.training.loop import Trainee
from capacity.training.run import execute

CHOICES = (SizeChoice(budget=13), SizeChoice(budget=84), SizeChoice(adapter="lora", rank=8), SizeChoice(adapter="full"))


class Clocked(Checkpoints):
    """Remembers how long each save took, in seconds."""

    def __init__(self, study: Path) -> None:
        super().__init__(study, "measured", 1e-9, lambda _, text: print(text))
        self.seconds: list[float] = []

    def _save(self, pairs: Sequence[tuple[object, Trainee]]) -> None:
        began = time.perf_counter()
        super()._save(pairs)  # type: ignore[arg-type]
        self.seconds.append(time.perf_counter() - began)


def spec_of(model: str, choice: SizeChoice, steps: int) -> RunSpec:
    size = size_of(model, choice, "bf16")
    spec = trained_spec(model, parse_task("abacus"), "grpo", size, 0, "bf16", rates={"grpo": 1e-4})
    assert spec.training is not None
    training = spec.training.model_copy(update={"steps": steps, "warmup_steps": 0})
    evaluation = spec.evaluation.model_copy(update={"items": 8})
    return spec.model_copy(update={"training": training, "evaluation": evaluation})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="abacus-0.9m")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    bases = Bases("cpu")
    print("trained parameters | bytes | ms a save (median)")
    for choice in CHOICES:
        spec = spec_of(given.model, choice, given.steps)
        with tempfile.TemporaryDirectory() as folder:
            clocked = Clocked(Path(folder))
            record = execute(spec, "cpu", bases=bases, checkpoints=clocked)
            size = study_folder.checkpoint_of(Path(folder), spec.short_id).stat().st_size
        median = 1000 * statistics.median(clocked.seconds)
        print(f"{record.result.trained_parameters:,} | {size:,} | {median:.1f}", flush=True)
    base = bases.of(given.model)
    began = time.perf_counter()
    weights_digest(base.model)
    print(f"hash of the frozen weights of {given.model}: {1000 * (time.perf_counter() - began):.1f} ms")


if __name__ == "__main__":
    main()
