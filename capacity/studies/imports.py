"""Imports what the runs of a worker need, in about two thirds of the time that plain imports take."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

_UNNEEDED = "bitsandbytes"  # PEFT imports it where it is installed, and it imports torch's compiler


def import_libraries() -> None:
    """Imports torch, transformers, PEFT and the modules of this package that make runs. Call it once in a process.

    bitsandbytes is left to the runs on quantised bases, which import it themselves. Python looks for no garbage while
    it makes the objects of modules, and never again among them.
    """
    gc.disable()
    with _absent(_UNNEEDED):
        from capacity.studies.quiet import quiet

        quiet()
        importlib.import_module("peft")
    importlib.import_module("capacity.training.run")
    gc.freeze()
    gc.enable()


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Makes every import of a module fail within the context, as if it was not installed."""
    if name in sys.modules or find_spec(name) is None:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
