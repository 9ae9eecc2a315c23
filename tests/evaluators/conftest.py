"""These run lm-evaluation-harness and inspect_ai themselves, in an environment of their own: `make test-evaluators`."""

import os

collect_ignore_glob = [] if os.environ.get("CAPACITY_EVALUATORS") else ["test_*.py"]
