"""Tests of the built wheel in an environment of its own: `make test-wheel` builds it and sets CAPACITY_WHEEL."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("CAPACITY_WHEEL") else ["test_*.py"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program of the wheel's environment, in an empty folder and without the variables of this process."""
    bin_folder = Path(os.environ["CAPACITY_WHEEL"]).absolute() / "bin"
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def started(*command: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
        program = [str(bin_folder / command[0]), *command[1:]]
        return subprocess.run(
            program, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=seconds
        )

    return started
