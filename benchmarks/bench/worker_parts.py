"""Makes a comparison whose workers say what their CPU seconds went into: `python -m benchmarks.bench.worker_parts OUT`.

The workers are those of `capacity compare`, at their usual work. They are killed at the end, so each writes what it has
measured after every run, before it says that the run is complete.
"""

import argparse
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.bench.clock import REST, Clock, watched

PLACE = "CAPACITY_BENCH_PARTS"  # the environment variable with the folder that workers write into


def parts() -> list[tuple[Any, str, str]]:
    """Returns what holds each function that is a part of a worker's work, its name there, and the name of the part."""
    from capacity.studies import worker
    from capacity.training import run

    return [
        (worker, "checked", "check of the prompts"),
        (run.Bases, "check", "check of the prompts"),
        (run.Bases, "of", "loading of the model"),
        (run, "layout_of", "factors and adapter"),
        (run.Base, "adapted", "factors and adapter"),
        (run, "evaluate", "test evaluation of trained runs"),
        (run, "evaluate_at", "evaluation of the base"),
        (run, "heldout_code_length", "code length of held-out sequences"),
        (worker, "add_finished", "writing of runs"),
    ]


def work(*arguments: Any) -> None:
    """Works as `capacity.studies.worker.work` does, with its parts timed."""
    from capacity.studies import device, worker
    from capacity.studies.imports import import_libraries

    clock = Clock()
    clock.seconds["start of Python"] = clock.began
    clock.began = 0.0
    device.keep_one_gpu()
    with clock.part("imports"):
        import_libraries()
        from capacity.training import run
    with ExitStack() as stack:
        for owner, attribute, part in parts():
            stack.enter_context(watched(clock, owner, attribute, part))
        make, train_by, add = worker.JobMaker.make, run.train_by, worker.add_finished

        def trained(*given: Any) -> Any:
            with clock.part(f"training, {methods[-1]}"):
                return train_by(*given)

        def made(self: Any, job: Any, bases: Any) -> None:
            methods.append(job[0].method)
            make(self, job, bases)

        def added(*given: Any, **named: Any) -> Any:
            found = add(*given, **named)
            write()
            return found

        def write() -> None:
            seconds = {**clock.seconds, REST: time.process_time() - clock.seconds.total()}
            told = {"seconds": seconds, "runs": len(methods)}
            (Path(os.environ[PLACE]) / f"{os.getpid()}.json").write_text(json.dumps(told))

        methods: list[str] = []
        stack.enter_context(patch.object(run, "train_by", trained))
        stack.enter_context(patch.object(worker.JobMaker, "make", made))
        stack.enter_context(patch.object(worker, "add_finished", added))
        worker.work(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="an empty folder for the study, and for what the workers say")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each method (default: %(default)s)")
    arguments = parser.parse_args()
    from capacity.library.compare import compare
    from capacity.studies import workers

    os.environ[PLACE] = str(arguments.out)
    with patch.object(workers, "work", work):
        compare(seeds=arguments.seeds, out=arguments.out / "study", workers=2)
    said = [json.loads(path.read_text()) for path in arguments.out.glob("*.json")]
    parts = [name for told in said for name in told["seconds"]]
    print(json.dumps({name: sum(told["seconds"].get(name, 0.0) for told in said) for name in dict.fromkeys(parts)}))


if __name__ == "__main__":
    main()
