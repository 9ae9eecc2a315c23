"""Sentences of commands fold between words on a terminal, and stay one line elsewhere."""

import io

import pytest

from capacity_cli.app import _said
from capacity_cli.prose import folded, say

LINE = "capacity: /a/path/that-is-longer-than/the/terminal/is/wide.toml: unknown unit 'XB': use k, M or G for numbers"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_fold_between_words_and_paths_stay_whole():
    lines = folded(f"Short.\n{LINE}", 40).split("\n")
    assert lines[0] == "Short."
    assert " ".join(lines[1:]) == LINE
    assert [line for line in lines if len(line) > 40] == [LINE.split()[1]]


def test_a_pipe_gets_whole_lines():
    file = io.StringIO()
    say(LINE, file)
    assert file.getvalue() == f"{LINE}\n"


def test_an_error_on_a_terminal_folds_between_words(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    assert _said("--memory '24XB' has an unknown unit 'XB': use k, M or G for numbers, B, kB, KiB or MB", 2) == 2
    assert terminal.getvalue().splitlines() == [
        "capacity: --memory '24XB' has an unknown unit 'XB': use k, M",
        "or G for numbers, B, kB, KiB or MB",
    ]
