"""Lets several sides work in turns, A-B-A-B, each in a process of its own and only one at a time.

The driver imports no torch: it stays small, and what its children use is their own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capacity.errors import CapacityError

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Call:
    """A call says what one side does.

    Attributes:
        target: the function, as "module:function" in this package. It takes a gate and the arguments.
        arguments: its other arguments, as JSON can hold them.
        python: the interpreter that runs it.
    """

    target: str
    arguments: Mapping[str, Any]
    python: str = sys.executable


@dataclass(frozen=True)
class Turn:
    """What one turn of a side took, in seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Measured:
    """What a side took and what it says of its work.

    Attributes:
        turns: the turns that count, in order.
        facts: what the side's function returned.
        loaded: resident memory before the first turn, in bytes: libraries, model and data.
        peak: the largest resident memory, in bytes.
    """

    turns: tuple[Turn, ...]
    facts: Mapping[str, Any]
    loaded: int
    peak: int

    @property
    def cpu(self) -> tuple[float, ...]:
        """Returns the CPU seconds of each turn."""
        return tuple(turn.cpu for turn in self.turns)

    @property
    def wall(self) -> tuple[float, ...]:
        """Returns the wall seconds of each turn."""
        return tuple(turn.wall for turn in self.turns)


@dataclass
class _Side:
    name: str
    process: subprocess.Popen[str]
    errors: Any
    turns: list[Turn] = field(default_factory=list)

    def read(self) -> dict[str, Any]:
        """Returns the next message of the side.

        Raises:
            CapacityError: if the side has ended without one. The message ends with the last line of its errors.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            message: dict[str, Any] = json.loads(line)
            return message
        self.errors.seek(0)
        last = (self.errors.read().strip() or "it said nothing").splitlines()[-1]
        raise CapacityError(f"{self.name} ended with exit code {self.process.wait()}: {last}")

    def work(self) -> dict[str, Any]:
        """Gives the side a turn, and returns its message after that: it is ready again, or finished."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        message = self.read()
        if message["state"] != "done":
            raise CapacityError(f"{self.name} finished within its turn {len(self.turns) + 1}")
        self.turns.append(Turn(message["cpu"], message["wall"]))
        return self.read()


def _started(name: str, call: Call) -> _Side:
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the side)
    process = subprocess.Popen(
        [call.python, "-m", "benchmarks.bench.side", call.target, json.dumps(call.arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        text=True, cwd=ROOT, env={**os.environ, **ONE_THREAD},
    )  # fmt: skip
    return _Side(name, process, errors)


def alternate(calls: Mapping[str, Call], turns: int, warm_up: int, say: Say) -> dict[str, Measured]:
    """Measures several sides turn by turn.

    Args:
        calls: what each side does, by its name. Each takes `warm_up` + `turns` turns.
        turns: the number of turns that count.
        warm_up: the number of turns before them, which do not count.
        say: hears of the progress.

    Raises:
        CapacityError: if a side ends early, or wants more turns.
    """
    sides: list[_Side] = []
    finished: dict[str, Measured] = {}
    try:
        for name, call in calls.items():  # one after the other, so that none works while another is measured
            say(f"{name} starts")
            sides.append(_started(name, call))
            sides[-1].read()
        for turn in range(warm_up + turns):
            for side in sides:
                message = side.work()
                if turn < warm_up + turns - 1:
                    continue
                if message["state"] != "finished":
                    raise CapacityError(f"{side.name} wants more than {warm_up + turns} turns")
                counted = tuple(side.turns[warm_up:])
                finished[side.name] = Measured(counted, message["facts"], message["loaded"], message["peak"])
            taken = ", ".join(f"{side.name} {side.turns[-1].cpu:.2f}" for side in sides)
            say(f"turn {turn + 1} of {warm_up + turns}{' (warm-up)' if turn < warm_up else ''}, CPU seconds: {taken}")
    finally:
        for side in sides:
            side.process.kill()
            side.process.wait()
            side.errors.close()
    return finished
