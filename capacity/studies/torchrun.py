"""Makes the runs of a study one after the other, each over all processes that were started together.

torchrun --nproc-per-node 4 -m capacity.studies.torchrun STUDY.toml --out FOLDER
accelerate launch --multi_gpu --num_processes 4 -m capacity.studies.torchrun STUDY.toml --out FOLDER

For runs that are too slow on one GPU. Where they are not, `capacity sweep` makes better use of several: a run each.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from capacity.errors import CapacityError, SpecError
from capacity.plan.grid import cells, result_specs
from capacity.plan.study_file import read_study_file
from capacity.runs.fingerprint import Fingerprint, current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.device import own_device


def specs_of(path: Path) -> list[RunSpec]:
    """The runs of a study file.

    Raises:
        SpecError: its rates are to be tuned, which is `capacity sweep`'s work.
    """
    file = read_study_file(path)
    if next(iter(cells(file, tuned=True)), None) is not None:
        raise SpecError(f'{path}: its rates are "tuned": tune them with capacity sweep, and write them into the file')
    return result_specs(file, {})


def make(specs: Sequence[RunSpec], study: Study, fingerprint: Fingerprint) -> int:
    """Makes what is missing of `specs`, in a process group; the first process writes. Returns how many failed."""
    from capacity.training.processes import Processes
    from capacity.training.run import execute

    processes = Processes.current()
    first = processes.rank == 0
    failed = 0
    with study.locked() if first else nullcontext():
        if first:
            study.write_plan(specs)
        # The first process knows what is missing, and all must agree.
        found = [s for s in specs if study.find(s, fingerprint)[0] == "missing"] if first else []
        missing = processes.gathered(found)[0]
        for spec in missing:
            try:
                record = execute(spec, fingerprint.device)
            except CapacityError as error:  # of the run itself, so every process has it
                failed += 1
                if first:
                    study.add_failure(spec, str(error), traceback.format_exc())
                    print(f"failed: {spec.label}: {error}", file=sys.stderr)
                continue
            if first:
                result = record.result.model_copy(update={"processes": processes.count})
                study.add(spec, fingerprint, result, record.steps, record.outcomes, record.artifact)
                print(f"{spec.label}: {record.result.accuracy:.3f}", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit codes as those of `capacity sweep`."""
    parser = argparse.ArgumentParser(prog="capacity.studies.torchrun", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, help="study file whose rates are given")
    parser.add_argument("--out", type=Path, help="study folder; capacity-studies/NAME by default")
    given = parser.parse_args(arguments)
    import torch
    import torch.distributed as dist

    from capacity.studies.quiet import quiet

    quiet()
    device = own_device()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        specs = specs_of(given.study)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        study = Study(given.out or Path("capacity-studies") / given.study.stem)
        return 1 if make(specs, study, current(device, "fp32")) else 0
    except CapacityError as error:
        print(f"capacity: {error}", file=sys.stderr)
        return 2
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
