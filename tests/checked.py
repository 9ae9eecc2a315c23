"""What the tests of `capacity baseline` and `capacity check` have in common."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def assert_one_line(done, words, code=2):
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("capacity: ")
    assert done.err.count("\n") == 1
    assert words in done.err
