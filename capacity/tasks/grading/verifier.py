"""Asks another process whether an answer is correct, with a limit of time and memory for each answer.

To compare LaTeX, sympy evaluates whatever a model wrote. "10^{10^{10}}" would fill the memory, and no signal stops a C
function that multiplies. So the comparison has a process of its own, which the operating system ends at its limit. The
answer then counts as wrong, and the next one gets a new process. The limit counts CPU seconds, so a busy machine does
not change grades.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from capacity.errors import CapacityError

Kind = Literal["math", "gym"]
_PACKAGES: dict[Kind, tuple[str, str]] = {
    "math": ("math_verify", "math-verify"),
    "gym": ("reasoning_gym", "reasoning-gym"),
}
CPU_SECONDS = 2  # for one answer; usual ones take milliseconds
_WALL_FACTOR = 24  # waits so many times longer on a busy machine, for a process that sleeps or is stopped
_START_SECONDS = 600  # to import sympy


class Verifier:
    """A verifier owns one process that compares answers. Threads may share it.

    It starts the process when it is needed, and again when the process was ended.
    """

    def __init__(self, kind: Kind, cpu_seconds: int = CPU_SECONDS) -> None:
        self.kind = kind
        self.cpu_seconds = cpu_seconds
        self.ended = 0  # answers that reached a limit
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def right(self, **request: Any) -> bool:
        """Tells whether the answer of a request is correct. An answer that cannot be read or reaches a limit is not.

        Raises:
            CapacityError: if the package that compares is not installed, or its process does not start.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            reply = self._ask(json.dumps(request), self.cpu_seconds * _WALL_FACTOR)
            if reply is None:
                self.ended += 1
                self._end()
            return reply == b"1"

    def close(self) -> None:
        """Ends the process of the verifier."""
        with self._lock:
            self._end()

    def _start(self) -> "subprocess.Popen[bytes]":
        module, package = _PACKAGES[self.kind]
        if find_spec(module) is None:
            raise CapacityError(f"grading this task needs {package}: pip install {package}")
        root = str(Path(__file__).parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "capacity.tasks.grading.verifier_worker", self.kind, str(self.cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is its parent's to handle
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        if self._reply(_START_SECONDS) != b"ready":
            self._end()
            raise CapacityError(f"{package} does not start: run python -c 'import {module}' to see why")
        return self._process

    def _ask(self, line: str, seconds: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._reply(seconds)

    def _reply(self, seconds: float) -> bytes | None:
        """Returns the next line of the process; None if it ends, or is silent for `seconds`."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, until, received = self._process.stdout.fileno(), time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                part = os.read(descriptor, 64)
                if not part:
                    return None
                received += part
        return received.strip()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):  # what was not sent is lost with its reader
                stream.close()


@cache
def verifier(kind: Kind) -> Verifier:
    """Returns the verifier that all tasks of this process share, because it takes seconds to start one."""
    return Verifier(kind)
