"""Charges the CPU seconds of a process to named parts of its work. No torch here."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Protocol
from unittest.mock import patch

REST = "everything else"  # what belongs to no part


class Watch(Protocol):
    """Something that is told when a part of the work begins and ends."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Returns the context in which the part is at work. A part within another one belongs to the outer one."""


class Clock:
    """Measures how long each part is at work.

    Args:
        read: returns the time in seconds; the CPU time of this process by default.

    Attributes:
        seconds: the seconds of each part since the last cut.
    """

    def __init__(self, read: Callable[[], float] = time.process_time) -> None:
        self.read = read
        self.seconds: Counter[str] = Counter()
        self.within = False
        self.began = read()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charges the context to a part, unless another part is at work already."""
        if self.within:
            yield
            return
        self.within, began = True, self.read()
        try:
            yield
        finally:
            self.within = False
            self.seconds[name] += self.read() - began

    def cut(self) -> dict[str, float]:
        """Returns the seconds of each part since the last cut, and of the rest."""
        found = {**self.seconds, REST: self.read() - self.began - self.seconds.total()}
        self.restart()
        return found

    def restart(self) -> None:
        """Forgets what has been measured since the last cut."""
        self.seconds.clear()
        self.began = self.read()


def watched(watch: Watch, owner: Any, attribute: str, name: str) -> AbstractContextManager[Any]:
    """Returns the context in which every call of a function is a part of the work.

    Args:
        watch: is told of the calls.
        owner, attribute: the class or module that holds the function, and its name there.
        name: the name of the part.
    """
    function = getattr(owner, attribute)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with watch.part(name):
            return function(*arguments, **options)

    return patch.object(owner, attribute, call)
