"""Runs one side of a measurement in a process of its own: `python -m benchmarks.bench.side MODULE:FUNCTION ARGUMENTS`.

The process works only when the driver says so, and tells what each of its turns took. Driver and side exchange lines of
JSON through stdin and stdout. Whatever a library prints goes to stderr.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO


def memory(field: str) -> int:
    """Returns the resident memory of this process in bytes: `VmRSS` is the present one, `VmHWM` the largest.

    Where the system has no such file, it is the largest one so far.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Gate:
    """A gate lets a side work in turns, and measures the CPU and wall seconds of each turn."""

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self.orders, self.answers = orders, answers
        self.loaded: int | None = None
        self.began = (0.0, 0.0)

    def wait(self) -> None:
        """Waits until the driver gives the turn to this side, then starts the clocks."""
        if self.loaded is None:
            self.loaded = memory("VmRSS")
        self.say(state="ready")
        if not self.orders.readline():
            raise SystemExit("the driver has ended")
        self.began = (time.process_time(), time.perf_counter())

    def done(self) -> None:
        """Stops the clocks and tells the driver what the turn took."""
        cpu, wall = time.process_time() - self.began[0], time.perf_counter() - self.began[1]
        self.say(state="done", cpu=cpu, wall=wall)

    def say(self, **message: Any) -> None:
        """Sends a message to the driver."""
        self.answers.write(json.dumps(message) + "\n")
        self.answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gate = Gate(sys.stdin, answers)
    module, _, function = sys.argv[1].partition(":")
    work = getattr(import_module(f"benchmarks.bench.{module}"), function)
    facts = work(gate, **json.loads(sys.argv[2]))
    gate.say(state="finished", facts=facts, loaded=gate.loaded, peak=memory("VmHWM"))


if __name__ == "__main__":
    main()
