"""What a worker imports before its first run."""

import subprocess
import sys
from importlib.util import find_spec

CODE = """
import gc, os, sys
from capacity.studies.imports import import_libraries
import_libraries()
print("capacity.training.run" in sys.modules, gc.isenabled(), len(os.listdir("/proc/self/task")))
print(*sorted({"bitsandbytes", "trl", "datasets", "pandas", "matplotlib"} & sys.modules.keys()))
from peft.import_utils import is_bnb_available
print(is_bnb_available())
"""


def test_a_worker_imports_what_runs_need_and_leaves_the_rest_to_those_that_need_it() -> None:
    command = [sys.executable, "-c", CODE]
    made, unneeded, quantised = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert made == "True True 1"
    assert unneeded == ""
    assert quantised == str(find_spec("bitsandbytes") is not None)  # a quantised base finds it later
