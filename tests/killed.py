"""Runs that are killed in the middle of their training by signal 9, and go on in another process.

    python killed.py FOLDER

Each run is made three times, each time in a process that is forked before torch has computed anything: without an
interruption, up to a kill in the loss of a step, and on from the checkpoint. FOLDER then holds what both ways gave:
`whole-NAME` and `continued-NAME`.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from small import SMALLEST, small_spec

from capacity.runs import files
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies.quiet import quiet
from capacity.training.base import Bases
from capacity.training.checkpoints import Checkpoints
from capacity.training.run import RunRecord, execute, execute_together

STEPS, KILLED_AT = 6, 4
RATES = {"sft": 0.003, "grpo": 0.01}
JOBS: dict[str, tuple[RunSpec, ...]] = {
    **{m: (small_spec(m, model=SMALLEST, steps=STEPS, warmup_steps=2),) for m in ("sft", "rft", "grpo")},  # type: ignore[arg-type]
    "random-reward": (small_spec("random-reward", model=SMALLEST, steps=STEPS),),
    "sft+grpo": (small_spec("sft+grpo", model=SMALLEST, steps=STEPS, rates=RATES),),  # type: ignore[arg-type]
    "full": (small_spec("sft", "full", rate=1e-4, model=SMALLEST, steps=STEPS),),
    "together": tuple(small_spec("grpo", seed=seed, model=SMALLEST, steps=STEPS) for seed in (0, 1)),
}


def made(specs: Sequence[RunSpec], checkpoints: Checkpoints | None, on_step: Callable[[Step], None]) -> list[RunRecord]:
    bases = Bases("cpu")
    if len(specs) == 1:
        return [execute(specs[0], "cpu", on_step, bases=bases, checkpoints=checkpoints)]
    found = execute_together(specs, lambda _, step: on_step(step), bases, checkpoints)
    return [record for record in found if isinstance(record, RunRecord)]


def write(folder: Path, records: Sequence[RunRecord]) -> None:
    for number, record in enumerate(records):
        part = folder / str(number)
        part.mkdir(parents=True)
        files.write_records(part / "metrics.jsonl", record.steps)
        files.write_records(part / "outcomes.jsonl", record.outcomes)
        (part / files.ARTIFACT).write_bytes(record.artifact or b"")
        timeless = record.result.model_dump(exclude={"training_seconds", "wall_seconds", "worker_peak_memory_bytes"})
        files.write_json(part / "result.json", timeless)


def make(
    folder: Path, specs: Sequence[RunSpec], checkpoints: Checkpoints | None, on_step: Callable[[Step], None]
) -> None:
    write(folder, made(specs, checkpoints, on_step))


def forked(work: Callable[[], None]) -> int:
    """Calls a function in a process of its own, and returns how that ended, as `os.waitpid` tells it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def kill(step: Step) -> None:
    if step.step == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


def silent(_: Step) -> None:
    pass


def main() -> None:
    quiet()
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    for name, specs in JOBS.items():
        study = root / f"study-{name}"
        study.mkdir(parents=True)
        every_step = Checkpoints(study, "environment", 1e-9, lambda spec, text: print(f"{spec.seed}: {text}"))
        ways = (("whole", None, silent), ("never", every_step, kill), ("continued", every_step, silent))
        ends = [forked(partial(make, root / f"{way}-{name}", specs, keep, on_step)) for way, keep, on_step in ways]
        print(name, ends, flush=True)


if __name__ == "__main__":
    main()
