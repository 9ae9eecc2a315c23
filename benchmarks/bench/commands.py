"""Runs whole commands and measures what they and their children used."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.turns import ONE_THREAD, ROOT
from capacity.errors import CapacityError

_KIB = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Used:
    """What a command used.

    Attributes:
        cpu, wall: seconds; `cpu` is that of the command and of the children that it waited for.
        peak: the largest resident memory of any one of these processes, in bytes. It is never less than that of the
            process that started the command, because the system passes that on.
        output: what it printed.
    """

    cpu: float
    wall: float
    peak: int
    output: str


@dataclass
class Running:
    """A command that has started. `wait` returns what it used."""

    command: Sequence[str]
    process: subprocess.Popen[str]
    output: object
    errors: object
    began: float

    def wait(self) -> Used:
        """Waits for the end of the command.

        Raises:
            CapacityError: if it fails. The message ends with the last line of its errors.
        """
        _, status, usage = os.wait4(self.process.pid, 0)
        wall = time.perf_counter() - self.began
        self.process.returncode = os.waitstatus_to_exitcode(status)
        output, errors = (_text(file) for file in (self.output, self.errors))
        if self.process.returncode != 0:
            last = (errors.strip() or "it said nothing").splitlines()[-1]
            raise CapacityError(f"{' '.join(self.command)[:80]} ended with {self.process.returncode}: {last}")
        return Used(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * _KIB, output)


def _text(file: object) -> str:
    with file as opened:  # type: ignore[attr-defined]
        opened.seek(0)
        return str(opened.read())


def start(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Running:
    """Starts a command in the root of the project, with one thread a process."""
    output, errors = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 (`wait` closes them)
    process = subprocess.Popen(
        command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={**os.environ, **ONE_THREAD, **(environment or {})},
    )  # fmt: skip
    return Running(command, process, output, errors, time.perf_counter())


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Used:
    """Runs a command to its end."""
    return start(command, environment).wait()


def installed(name: str) -> str:
    """Returns the path of a command of this environment."""
    return str(Path(sys.executable).parent / name)
