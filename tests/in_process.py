"""The command line in the process of a test, which starts no interpreter and imports nothing twice."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from capacity_cli import app


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object on stdout, when nothing went wrong."""
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    def refused(self, code: int) -> str:
        """The one line on stderr, when something did."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.startswith("capacity: ")
        assert self.err.count("\n") == 1
        return self.err


def capacity(folder: Path, *arguments: str) -> Done:
    """What the console script does, in this process, in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["capacity", *arguments]),
    ):
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
