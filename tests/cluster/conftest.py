"""These make runs on Ray clusters of this machine, and need Ray: `make test-ray`."""

import os

collect_ignore_glob = [] if os.environ.get("CAPACITY_RAY") else ["test_*.py"]
