"""Sentences on a terminal: they fold between words. In a pipe or a file each stays one line."""

import shutil
import sys
import textwrap
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints sentences, a line each.

    Args:
        text: one or more lines.
        stream: where to; None: standard output.
    """
    stream = stream or sys.stdout
    print(folded(text, shutil.get_terminal_size().columns) if stream.isatty() else text, file=stream, flush=True)


def folded(text: str, width: int) -> str:
    """Lines of at most `width` characters, broken between words alone, so that a path is never broken."""
    return "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
