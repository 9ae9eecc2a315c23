"""The recipes for clusters, as far as they can be checked without one."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from capacity.studies.executors.ray_cluster import SUPPORTED
from capacity_cli.app import app

ROOT = Path(__file__).parent.parent
SLURM, KUBERAY = ROOT / "docs" / "recipes" / "slurm.sh", ROOT / "docs" / "recipes" / "kuberay.yaml"


def sweep_options() -> set[str]:
    command: Any = get_command(app)
    return {option for parameter in command.commands["sweep"].params for option in parameter.opts}


def test_the_script_for_slurm_is_one_that_bash_reads() -> None:
    done = subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = SLURM.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(lines.index(line) < first for line in directives)  # sbatch reads no directive after a command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+=\S+", line) for line in directives)
    assert "#SBATCH --signal=B:TERM@120" in directives


def test_the_job_for_kuberay_has_its_fields() -> None:
    job = yaml.safe_load(KUBERAY.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"].startswith(f"{SUPPORTED}.")
    head = cluster["headGroupSpec"]["template"]["spec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    mounted = {mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in head["volumes"]}
    for template in (head, workers["template"]["spec"]):
        (container,) = template["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("path", [SLURM, KUBERAY], ids=["slurm", "kuberay"])
def test_the_command_of_a_recipe_has_only_options_that_exist(path: Path) -> None:
    (line,) = [line for line in path.read_text().splitlines() if re.search(r"^(  entrypoint: )?capacity sweep ", line)]
    used = set(re.findall(r"--[a-z-]+", line))
    assert used
    assert used <= sweep_options()


def test_the_supported_ray_is_that_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["ray"] == [f"ray>={SUPPORTED},<2.61"]
    assert re.search(rf"^ray=={re.escape(SUPPORTED)}\.\d+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
