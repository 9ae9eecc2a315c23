"""The plugin in a pytest session of its own, loaded by name as the entry point would."""

import os
import subprocess
import sys

import guarded
import pytest

from capacity.errors import DataError, SpecError
from capacity_analysis.check.snapshot import snapshot
from capacity_reports.pytest_plugin import assert_not_worse

TEST = """
def test_same(assert_not_worse):
    assert assert_not_worse("old", "baseline.json", margin=0.02).outcome == "identical"

def test_bad(assert_not_worse):
    assert_not_worse("bad", "baseline.json", margin=0.02)

def test_unclear(assert_not_worse):
    assert_not_worse("fresh", "baseline.json", margin=0.0001)

def test_unclear_skips(assert_not_worse):
    assert_not_worse("fresh", "baseline.json", margin=0.0001, inconclusive="skip")
"""
HEAVY = """
import sys
import capacity_reports.pytest_plugin
print(sorted({"numpy", "scipy", "torch", "capacity_analysis", "pandas"} & set(sys.modules)))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a baseline and three studies."""
    old = guarded.make(seeds=range(3))
    guarded.write(old, tmp_path / "old", monkeypatch)
    guarded.write(guarded.make(seeds=range(3), draw=1, shift=-0.15), tmp_path / "bad", monkeypatch)
    guarded.write(guarded.make(seeds=range(3), draw=1), tmp_path / "fresh", monkeypatch)
    (tmp_path / "baseline.json").write_text(snapshot(old).to_text())
    return tmp_path


def test_plugin_gives_the_assertion_to_a_session(project):
    (project / "test_capacity.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "capacity_reports.pytest_plugin", "-p", "no:cacheprovider"],
        cwd=project,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 failed, 1 passed, 1 skipped" in done.stdout, done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("Worse (margin 2 points): grpo worse, -1") for line in lines)
    assert any(line.startswith("Inconclusive (margin 0.01 points): grpo inconclusive, ") for line in lines)
    assert any(line.startswith("FAILED test_capacity.py::test_bad - ") for line in lines)
    assert "Traceback" not in done.stdout


def test_plugin_costs_a_session_nothing():
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_assertion_raises_what_is_wrong_with_its_input(project):
    with pytest.raises(DataError, match="no such file"):
        assert_not_worse(project / "old", project / "none.json", margin=0.02)
    with pytest.raises(DataError, match="no such study folder"):
        assert_not_worse(project / "none", project / "baseline.json", margin=0.02)
    with pytest.raises(SpecError, match='choose "fail" or "skip"'):
        assert_not_worse(project / "old", project / "baseline.json", margin=0.02, inconclusive="pass")
