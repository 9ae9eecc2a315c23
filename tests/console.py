"""The command `capacity` in processes of its own, for tests of what people type."""

import json
import os
import subprocess
import sys
from pathlib import Path

CAPACITY = str(Path(sys.executable).parent / "capacity")
COMMANDS = (
    "baseline", "bits", "certify", "check", "compare", "describe", "doctor", "evaluate", "export", "express", "factors",
    "import", "models", "plan", "report", "runs", "sweep", "tasks", "threshold", "verdict", "version", "view",
)  # fmt: skip
# Many command lines in one process, and which heavy libraries they imported together.
DRIVER = """
import json, sys
from pathlib import Path
from in_process import capacity
ended = [capacity(Path(), *command.split()) for command in json.load(sys.stdin)]
heavy = {"torch", "transformers", "trl", "peft", "datasets", "safetensors", "tokenizers"}
answers = [[done.code, done.out, done.err] for done in ended]
json.dump({"answers": answers, "heavy": sorted(heavy & set(sys.modules))}, sys.stdout)
"""


def run(arguments, cwd, stdin=""):
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


def run_many(commands, cwd):
    """What each command line of `capacity` prints, and which heavy libraries they imported together."""
    done = run([sys.executable, "-c", DRIVER], cwd, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ended = [subprocess.CompletedProcess(c, *a) for c, a in zip(commands, report["answers"], strict=True)]
    return dict(zip(commands, ended, strict=True)), report["heavy"]


def assert_one_line(done, code):
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("capacity: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert done.stdout == ""
    assert done.returncode == code
