"""Whole studies: `capacity compare` from nothing, and a sweep against the same runs as stock scripts."""

import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.bench.commands import Running, Used, installed, run, start
from benchmarks.bench.figures import Figure, Quantity, check_same
from benchmarks.bench.turns import Say
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.sweep import planned_specs

SWEEP = Path(__file__).with_name("sweep.toml")
WORKERS = 2
SEEDS = 5
SCRIPT_SEEDS = 2  # scripts of further seeds do the same work: their time is extrapolated


def measure(say: Say) -> Iterator[Figure]:
    """Yields the figure of the sweep, then that of the comparison."""
    yield _sweep(say)
    yield _comparison(say)


def _comparison(say: Say) -> Figure:
    """Makes the comparison that `capacity compare` makes by default, with an empty cache in an empty folder."""
    subject = f"capacity compare --seeds {SEEDS}, nothing cached"
    say(f"{subject} starts")
    with tempfile.TemporaryDirectory() as scratch:
        command = [installed("capacity"), "compare", "--seeds", str(SEEDS), "--out", f"{scratch}/study", "--json"]
        used = run(command, {"CAPACITY_CACHE": f"{scratch}/cache"})
        runs = len(list((Path(scratch) / "study" / "runs").iterdir()))
    quantities = (
        Quantity("CPU s", (used.cpu,)),
        Quantity("wall s", (used.wall,)),
        Quantity("peak memory of a process, MB", (used.peak / 1e6,)),
    )
    return Figure("studies", subject, "", quantities, {"runs": runs, "verdict": json.loads(used.output).get("verdict")})


def _sweep(say: Say) -> Figure:
    """Makes all runs of the sweep, and the scripts of two seeds. The time of the other scripts is extrapolated."""
    specs = planned_specs(SWEEP)
    assert specs is not None
    timed = [spec for spec in specs if spec.seed < SCRIPT_SEEDS]
    scale = len(specs) / len(timed)
    subject = f"A sweep of {len(specs)} runs on {WORKERS} workers"
    say(f"{subject}: ours starts")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "study"
        command = [installed("capacity"), "sweep", str(SWEEP), "--workers", str(WORKERS), "--out", str(folder)]
        ours = run(command, {"CAPACITY_CACHE": f"{scratch}/cache"})
        made = {r.spec.short_id: r for r in Study(folder).runs()}
        own = [
            {
                "trained_parameters": r.result.trained_parameters,
                "steps": len(r.steps),
                "items": r.result.n_items,
                "accuracy": r.result.accuracy,
            }
            for r in (made[spec.short_id] for spec in timed)
        ]
    say(f"{subject}: ours took {ours.wall:.0f} s wall, {ours.cpu:.0f} s CPU; scripts start")
    scripts, theirs, wall = _scripts(timed, lambda text: say(f"{subject}: {text}"))
    accuracies = [tuple(fmean([r.pop("accuracy") for r in side]) for _ in "1") for side in (own, theirs)]
    check_same(subject, {"runs": own}, {"runs": theirs})
    extrapolated = f"theirs: {len(timed)} scripts, times {scale:g}"
    quantities = (
        Quantity(f"CPU s ({extrapolated})", (ours.cpu,), (scale * sum(used.cpu for used in scripts),)),
        Quantity(f"wall s ({extrapolated})", (ours.wall,), (scale * wall,)),
        Quantity("peak memory of a process, MB", (ours.peak / 1e6,), (max(u.peak for u in scripts) / 1e6,)),
        Quantity(f"mean accuracy of these {len(timed)} runs", *accuracies),
    )
    same = {"runs": len(specs), "scripts": len(timed), "methods": sorted({spec.method for spec in specs})}
    return Figure("studies", subject, "stock scripts, a process a run, two at a time", quantities, same)


def _scripts(specs: list[RunSpec], say: Say) -> tuple[list[Used], list[dict[str, Any]], float]:
    """Runs a script for each spec, as many at a time as there are workers.

    Returns:
        What each used and what it found, in the order of `specs`, and the wall seconds of all.
    """
    began = time.perf_counter()
    used: list[Used] = []
    running: deque[Running] = deque()
    with tempfile.TemporaryDirectory() as scratch:
        for index, spec in enumerate(specs):
            if len(running) == WORKERS:
                used.append(running.popleft().wait())
                say(f"{len(used)} of {len(specs)} scripts done")
            file = Path(scratch) / f"{index}.json"
            file.write_text(spec.model_dump_json())
            running.append(start([sys.executable, "-m", "benchmarks.bench.stock_run", str(file)]))
        used += [process.wait() for process in running]
    return used, [json.loads(u.output) for u in used], time.perf_counter() - began
