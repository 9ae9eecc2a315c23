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
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from capacity.errors import CapacityError, SpecError
from capacity.plan.grid import grid_points, result_specs
from capacity.plan.study_file import read_study_file
from capacity.runs.fingerprint import Fingerprint, Trainer, current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.device import own_device
from capacity.studies.finished import add_finished, record_failure
from capacity.studies.make import missing_runs
from capacity.studies.sweep import default_folder

if TYPE_CHECKING:
    from capacity.training.processes import Processes


def specs_of(path: Path) -> list[RunSpec]:
    """The runs of a study file.

    Raises:
        SpecError: its rates are to be tuned, which is `capacity sweep`'s work.
    """
    file = read_study_file(path)
    if next(iter(grid_points(file, tuned=True)), None) is not None:
        raise SpecError(f'{path}: its rates are "tuned": tune them with capacity sweep, and write them into the file')
    return result_specs(file, {})


def make(specs: Sequence[RunSpec], study: Study, fingerprint: Fingerprint) -> int:
    """Makes what is missing of `specs` in a process group, whose first process writes. Returns how many failed.

    Raises:
        CapacityError: in every process alike: another process works on the study, or it has stale runs.
    """
    from capacity.training.preflight import check_runs
    from capacity.training.processes import Processes

    processes = Processes.current()
    with ExitStack() as held:
        missing: list[RunSpec] | CapacityError = []
        if processes.rank == 0:
            try:
                held.enter_context(study.locked())
                missing = missing_runs(study, specs, fingerprint)
                check_runs(missing)
            except CapacityError as error:
                missing = error
        missing = processes.gathered(missing)[0]  # the first process knows what is missing, and all must agree
        if isinstance(missing, CapacityError):
            raise missing
        return sum(not _made(spec, study, fingerprint, processes) for spec in missing)


def _made(spec: RunSpec, study: Study, fingerprint: Fingerprint, processes: "Processes") -> bool:
    """Makes one run; False if it fails. An error of one process ends the run in all of them."""
    from capacity.training.processes import FailedElsewhere
    from capacity.training.run import execute

    try:
        record = execute(spec, fingerprint.device, trainer=fingerprint.trainer)
        processes.gathered(None)  # nothing is added unless all processes have come this far
    except CapacityError as error:
        if not isinstance(error, FailedElsewhere):
            processes.fail(error)
        if processes.rank == 0:
            _fail(spec, record_failure(study, spec, str(error), traceback.format_exc()))
        return False
    added = True
    if processes.rank == 0:
        record = replace(record, result=record.result.model_copy(update={"processes": processes.count}))
        try:
            add_finished(study, spec, fingerprint, record, lambda message: _fail(spec, message))
        except CapacityError as error:
            _fail(spec, record_failure(study, spec, str(error), ""))
            added = False
        else:
            print(f"{spec.label}: {record.result.accuracy:.3f}", flush=True)
    return all(processes.gathered(added))


def _fail(spec: RunSpec, message: str) -> None:
    print(f"failed: {spec.label}: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit codes as those of `capacity sweep`."""
    parser = argparse.ArgumentParser(prog="capacity.studies.torchrun", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, help="study file whose rates are given")
    parser.add_argument("--out", type=Path, help="study folder; capacity-studies/NAME by default")
    parser.add_argument("--trainer", choices=get_args(Trainer), default="loop", help="what makes the steps of runs")
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
        study = Study(given.out or default_folder(read_study_file(given.study)))
        return 1 if make(specs, study, current(device, "fp32", given.trainer)) else 0
    except CapacityError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"capacity: {error}", file=sys.stderr)
        return 2 if isinstance(error, SpecError) else 1
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("capacity: interrupted: complete runs are kept; the same command continues", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
