"""Runs the parts of the check one after the other, within their time, and prints one table."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from capacity.plan.memory import gigabytes
from capacity.studies.device import device as own_device
from proofs.gpu_check.finding import Finding, failed
from proofs.gpu_check.parts import DATA_CENTRE, TINY, Check

_WIDTH = 92  # of the column that says what was measured


@dataclass(frozen=True)
class Part:
    """A part of the check by name; it yields what it finds."""

    name: str
    find: Callable[[], Iterator[Finding]]


def checked(parts: list[Part], seconds: float, say: Callable[[str], None]) -> list[Finding]:
    """Runs parts until the time is over. What is then left is "not run"."""
    began, found = time.perf_counter(), []
    for part in parts:
        if time.perf_counter() - began > seconds:
            found.append(Finding.not_run(part.name, "all of it", "the time was over"))
            continue
        started = time.perf_counter()
        for finding in _survived(part):
            found.append(finding)
            say(f"{time.perf_counter() - began:6.0f} s  {finding.part}: {finding.what}: {finding.measured}")
            if time.perf_counter() - began > seconds:
                found.append(Finding.not_run(part.name, "the rest of it", "the time was over"))
                break
        say(f"{time.perf_counter() - began:6.0f} s  {part.name} took {time.perf_counter() - started:.0f} s")
    return found


def _survived(part: Part) -> Iterator[Finding]:
    """Yields what a part finds. What it raises outside of its own attempts is a fault too."""
    try:
        yield from part.find()
    except Exception as error:
        yield failed(part.name, "preparation", error)


def table(found: list[Finding]) -> str:
    """Returns the findings as a table."""
    rows = [("part", "what", "measured", "bound", "verdict")]
    rows += [(f.part, f.what[:_WIDTH], f.measured, f.bound, f.verdict) for f in found]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks on a GPU what the tests check on a CPU.")
    parser.add_argument("--minutes", type=float, default=8.0, help="after so many minutes what is left is not run")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, to try the check itself")
    arguments = parser.parse_args()
    device = "cpu" if arguments.tiny else own_device()
    if device == "cpu" and not arguments.tiny:
        print("gpu-check: torch sees no GPU; --tiny tries the check itself on the CPU", file=sys.stderr)
        return 2
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, {gigabytes(torch.cuda.mem_get_info()[1])}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        print(f"models of random numbers in {scratch}, {gigabytes(shutil.disk_usage(scratch).free)} free")
        check = Check(TINY if arguments.tiny else DATA_CENTRE, device, Path(scratch))
        found = checked(
            [Part(name, find) for name, find in check.parts().items()],
            60 * arguments.minutes,
            partial(print, flush=True),
        )
    print("\n" + table(found))
    faults = sum(f.verdict == "fault" for f in found)
    print(f"\n{faults} faults, {sum(f.verdict == 'not run' for f in found)} not run")
    return 1 if faults else 0
