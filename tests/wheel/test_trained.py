"""The wheel with its extra `train`: the embedded model trains, and the report is written."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="with a GPU the CUDA build is the one to have")
def test_torch_is_the_cpu_build(run: Run) -> None:
    assert run("python", "-c", "import torch; print(torch.version.cuda)").stdout == "None\n"


def test_it_trains_and_writes_a_report(run: Run, tmp_path: Path) -> None:
    options = [
        "--model",
        "abacus-0.2m",
        "--budget",
        "13",
        "--methods",
        "sft",
        "--seeds",
        "1",
        "--learning-rates",
        "0.1",
    ]
    done = run("capacity", "compare", *options, "--out", "my-study", "--json", seconds=900)
    assert done.returncode == 0, done.stderr
    methods = {row["method"]: row["trained_parameters"] for row in json.loads(done.stdout)["results"]}
    assert methods == {"sft": 13}
    assert (tmp_path / "my-study" / "report.html").read_text().startswith("<!doctype html>")
    exported = next(
        path for path in (tmp_path / "my-study" / "runs").iterdir() if (path / "update.safetensors").exists()
    )
    assert run("capacity", "export", str(exported), "--to", "peft", "--out", "lora").returncode == 0
    assert (tmp_path / "lora" / "adapter_config.json").is_file()
