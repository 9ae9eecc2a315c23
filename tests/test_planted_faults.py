"""The planted changes still fit the sources; that `capacity check` sees them takes hours, see `make planted-faults`."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted_faults", ROOT / "benchmarks" / "planted_faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def tree(text):
    return ast.dump(ast.parse(text))


def test_every_change_fits_the_sources_and_makes_other_valid_ones(planted):
    assert len({change.name for change in planted.CHANGES}) == len(planted.CHANGES)
    for change in planted.CHANGES[1:]:
        texts = {edit.path: (ROOT / "capacity" / edit.path).read_text() for edit in change.edits}
        before = dict(texts)
        for edit in change.edits:
            texts[edit.path] = edit.applied(texts[edit.path])
        assert texts
        assert all(tree(texts[path]) != tree(before[path]) for path in texts), change.name


def test_an_edit_that_no_longer_fits_is_an_error(planted):
    with pytest.raises(SystemExit, match="adapt the planted change"):
        planted.Edit("x.py", "old", "new").applied("something else")


def test_what_a_change_must_give(planted):
    def surprise(expected, code):
        change = planted.Change("name", "what", expected)
        return not planted.Result(change, code, "", "", 0.0).as_expected

    assert [surprise("red", code) for code in (0, 1, 2, 3)] == [True, False, False, False]
    assert [surprise("green", code) for code in (0, 1, 2, 3)] == [False, True, True, True]
    assert not any(surprise("either", code) for code in (0, 1, 2, 3))
