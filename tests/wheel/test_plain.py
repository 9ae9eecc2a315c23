"""The wheel without torch: it holds every file of the packages, and it plans, reads and refuses clearly."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

from capacity import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("capacity", "analysis/capacity_analysis", "reports/capacity_reports", "cli/capacity_cli")
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_wheel_holds_every_file_of_the_packages_and_no_other() -> None:
    (wheel,) = (ROOT / "dist").glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {name.split("/", 1)[1] if name.split("/")[0] != "capacity" else name for name in tracked.stdout.split()}
    assert packed == expected


def test_the_metadata_is_that_of_the_sources(run: Run) -> None:
    said = run("python", "-c", "from importlib.metadata import version; print(version('sft-rl-capacity'))")
    assert said.stdout == f"{__version__}\n"
    assert run("capacity", "version").stdout == f"{__version__}\n"


def test_the_packages_come_from_the_environment(run: Run) -> None:
    names = "capacity, capacity_analysis, capacity_reports, capacity_cli"
    said = run("python", "-c", f"import {names}\nfor m in ({names}): print(m.__file__)")
    assert said.stderr == ""
    assert [".venv-wheel" in line for line in said.stdout.splitlines()] == [True] * 4


def test_it_helps_plans_and_lists_models_without_torch(run: Run) -> None:
    assert run("python", "-c", "import torch").returncode != 0
    assert "compare" in run("capacity", "--help").stdout
    plan = run("capacity", "plan", "--model", "abacus", "--budget", "13", "--json")
    assert (plan.returncode, '"trained_parameters": 13' in plan.stdout) == (0, True), plan
    models = run("capacity", "models")
    assert models.returncode == 0
    assert all(name in models.stdout for name in ("abacus-0.2m", "abacus-0.9m", "abacus-3m"))


def test_training_without_torch_says_what_to_install(run: Run) -> None:
    assert run("python", "-c", "import torch").returncode != 0
    said = run("capacity", "compare")
    assert said.returncode != 0
    assert len(said.stderr.splitlines()) == 1
    assert "needs torch" in said.stderr
    assert ".[train]" in said.stderr
