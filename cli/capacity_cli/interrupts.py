"""Ctrl-C from the first moment of the command to the last: one line on stderr and exit code 130.

SIGTERM, by which schedulers and `kill` end a process, is handled alike, with exit code 143.

Python's own way is an exception at whatever instruction comes next. That is right while a command works, because what
it holds is then released. Four things go wrong with it. Compiled modules turn the exception into errors of their own
while they are imported, and some print it. Python drops it in finalisers. Nobody handles it before the command begins
and after it has ended. And a second Ctrl-C disturbs what the first one releases.

This module imports nothing that takes time.
"""

import atexit
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

CODE = 130  # that of Ctrl-C, by the convention of shells: 128 and the number of the signal
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = "capacity: interrupted\n"
_IMPORTS = "<frozen importlib._bootstrap>"
_SAME = 1.0  # seconds in which another Ctrl-C is taken for the same one
_SOON = 0.01  # seconds until a Ctrl-C that Python dropped is sent again


class Interrupts:
    """Handles Ctrl-C and SIGTERM for one command, unless it was started with them ignored, as in the background.

    Attributes:
        code: the exit code of the interrupted command.
        asked: Ctrl-C was pressed. Whatever error ends the command then, the interruption is its reason.
        over: the command has ended, and its exit code is decided.
    """

    def __init__(self) -> None:
        self.code = CODE
        self.asked = self.over = False
        self._until = -1.0
        self._usual_hook = sys.unraisablehook

    def watch(self) -> None:
        """Takes over the signals in this process."""
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            # What is registered first runs last. After it Python would put back the signal's own way, a silent end.
            atexit.register(signal.signal, number, signal.SIG_IGN)
            signal.signal(number, self._handle)
        sys.unraisablehook = self._dropped

    def end(self) -> None:
        """The command has ended. Another Ctrl-C ends the process at once."""
        self.over = True
        # Python ends by the signal, whatever the exit code, if an interruption has passed through a text that was
        # executed, as dataclasses are made from. To execute another text makes it forget that.
        exec("")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.code = 128 + number
        if self.over or _importing(frame):
            self._end_now()
        now = time.monotonic()
        if now < self._until:
            return
        self.asked, self._until = True, now + _SAME
        raise KeyboardInterrupt

    def _end_now(self) -> None:
        """Ends the process. Nothing is lost: what is written appears whole or not at all, even when it is killed."""
        if not (self.over and self.asked):  # else the line is there already
            os.write(2, _LINE.encode())
        os._exit(self.code)

    def _dropped(self, unraisable: Any) -> None:
        """Sends a signal again that hit a finaliser, where Python drops exceptions."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._usual_hook(unraisable)
            return
        import threading

        self._until = -1.0
        threading.Timer(_SOON, os.kill, [os.getpid(), self.code - 128]).start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False
