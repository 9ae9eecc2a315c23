"""The planted changes still fit the sources; that `capacity check` sees them takes hours, see `make planted-faults`."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted_faults", ROOT / "proofs" / "planted_faults.py")
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
    def surprise(expected, code, outcome=""):
        change = planted.Change("name", "what", expected, words="another size" if expected == "refused" else "")
        return not planted.CheckedChange(change, code, outcome, "", 0.0).as_expected

    codes = (0, 1, 2, 3)
    assert [surprise("worse", code, "worse") for code in codes] == [True, False, True, True]
    assert surprise("worse", 1, "3 of 32 runs failed")
    assert [surprise("refused", code, "an update of another size") for code in codes] == [True, True, False, True]
    assert surprise("refused", 2, "no such file")
    assert [surprise("green", code) for code in codes] == [False, True, True, True]
    assert not any(surprise("either", code) for code in codes)
