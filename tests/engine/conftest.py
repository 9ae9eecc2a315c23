"""These run a real vLLM engine, in an environment of its own: `make test-vllm`."""

import os

collect_ignore_glob = [] if os.environ.get("CAPACITY_VLLM") else ["test_*.py"]
