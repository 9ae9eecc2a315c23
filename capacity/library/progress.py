"""How functions of the library tell what they have done so far: by default to nobody."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Count(Protocol):
    """Hears how many of some things are done."""

    def on_count(self, done: int, total: int) -> None:
        """`done` of `total` are done."""

    def on_module(self, done: int, total: int, name: str) -> None:
        """`done` of `total` modules are done, of which this was the last."""


class _Nobody:
    def on_count(self, done: int, total: int) -> None: ...

    def on_module(self, done: int, total: int, name: str) -> None: ...


# Called with the name of what is counted; the context gives what hears of it.
Progress = Callable[[str], AbstractContextManager[Count]]


@contextmanager
def silent(_: str) -> Iterator[Count]:
    """Progress that nobody hears of."""
    yield _Nobody()
