"""Makes a study of 10,000 made-up runs, and shows that it is listed, tabulated and asked in seconds.

    python proofs/many_runs.py [--runs 10000] [--items 64] [--limit 10] [--folder FOLDER]

Nothing is trained: answers are drawn by a Hill curve. Each command is timed twice. The first look at a run checks its
files, and later looks only see that they have not changed. It fails if a later look takes more CPU time than the limit.
On an idle machine that is the time of the clock, since each command is one process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from capacity.plan.grid import result_specs
from capacity.plan.kinds.table import trained_parameters
from capacity.plan.models import model_shape
from capacity.plan.study_file import parse_study
from capacity.runs import files, study_folder
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.result import Outcome, Result, Step
from capacity.spec.run import RunSpec

SIZES, METHODS = (1, 2, 4, 8, 13, 26, 52, 84, 168, 336), ("sft", "rft", "grpo")
COMPLETION = "#12+34=46 carry 0 " * 2


def specs(runs: int) -> list[RunSpec]:
    """The runs of a study of several sizes and methods, with as many seeds as make about so many runs."""
    grid = {
        "models": ["abacus-0.2m"], "methods": list(METHODS), "sizes": [{"budget": size} for size in SIZES],
        "rates": 0.003, "seeds": max(1, runs // (len(SIZES) * len(METHODS))),
    }  # fmt: skip
    return result_specs(parse_study({"name": "many", "grids": [grid]}, "many"), {})


def write(study: Study, spec: RunSpec, fingerprint: str, items: int, rng: np.random.Generator) -> None:
    """Writes a complete run, without waiting for the disk."""
    folder = study.path_of(spec)
    folder.mkdir()
    trained = spec.training is not None
    size = trained_parameters(spec.adapter, spec.model, model_shape(spec.model)[1])
    right = rng.random(items) < (0.1 + 0.8 / (1 + 20 / max(size, 1)) if trained else 0.1)
    outcomes = [Outcome(item=f"test-{n}", correct=(int(r),), completions=(COMPLETION,)) for n, r in enumerate(right)]
    result = Result(
        model_parameters=200_000, family="abacus", base_fingerprint="0" * 64, trained_parameters=size,
        update_bytes=2 * size, items_digest="0" * 16, n_items=items, n_correct=int(right.sum()),
        accuracy=float(right.mean()), wall_seconds=10.0, training_seconds=8.0, prompts=800, sequences=6400,
        sampled_sequences=0, sampled_tokens=0, trained_tokens=64_000, flops=10**10, worker_peak_memory_bytes=10**9,
    )  # fmt: skip
    made = 0 if spec.training is None else spec.training.steps
    steps = [Step(step=step, loss=1.0, reward=0.5, trained_tokens=100) for step in range(made)]
    (folder / "spec.json").write_text(spec.canonical_json() + "\n")
    (folder / "fingerprint.json").write_text(fingerprint + "\n")
    files.write_json(folder / "result.json", result.model_dump(mode="json"))
    files.write_records(folder / "metrics.jsonl", steps)
    files.write_records(folder / "outcomes.jsonl", outcomes)
    if trained:
        (folder / files.ARTIFACT).write_bytes(b"update" * 100)
    sums = {path.name: files.sha256_file(path) for path in sorted(folder.iterdir())}
    files.write_json(folder / files.CHECKSUMS, sums)


def used() -> float:
    """The CPU seconds of all commands so far."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--limit", type=float, default=10.0, help="CPU seconds a command may take")
    parser.add_argument("--folder", type=Path, help="where the study is kept; a temporary folder by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = Study((given.folder or Path(scratch)) / "many")
        wanted = specs(given.runs)
        with study.locked():
            study.write_plan(wanted)
            rng, fingerprint = np.random.default_rng(0), current("cpu", "fp32").model_dump_json()
            for spec in wanted:
                if not study.path_of(spec).is_dir():
                    write(study, spec, fingerprint, given.items, rng)
        assert (study.folder / study_folder.MARKER).is_file()
        slow = []
        points = Path(scratch) / "points.csv"
        for name, *options in (("runs",), ("runs", "--points", str(points)), ("threshold",)):
            for look in ("first", "later"):
                command = [sys.executable, "-m", "capacity_cli", name, str(study.folder), *options]
                began, before = time.monotonic(), used()
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
                wall, seconds = time.monotonic() - began, used() - before
                said = " ".join((name, *options[:1]))
                print(
                    f"{len(wanted):,} runs, {look} look: capacity {said}: {seconds:.1f} CPU s, {wall:.1f} s", flush=True
                )
                slow += [said] if look == "later" and seconds > given.limit else []
        sys.exit(f"slower than {given.limit:g} s: {', '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
