"""The command `capacity` in processes of its own, for tests of what people type."""

import json
import os
import subprocess
import sys
from pathlib import Path

CAPACITY = str(Path(sys.executable).parent / "capacity")
COMMANDS = (
    "baseline", "bits", "check", "compare", "describe", "evaluate", "export", "factors", "models", "plan", "report",
    "runs", "sweep", "tasks", "threshold", "version",
)  # fmt: skip
# What the console script does, for many command lines in one process.
DRIVER = """
import contextlib, io, json, sys, traceback
from capacity_cli.app import main
answers = []
for command in json.load(sys.stdin):
    sys.argv = ["capacity", *command.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    answers.append([code, out.getvalue(), err.getvalue()])
heavy = {"torch", "transformers", "trl", "peft", "datasets", "safetensors", "tokenizers"}
json.dump({"answers": answers, "heavy": sorted(heavy & set(sys.modules))}, sys.stdout)
"""


def run(arguments, cwd, stdin=""):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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
