"""Tests in a real browser: collected with CAPACITY_BROWSER=1, on Debian's Chromium."""

import os
import shutil

collect_ignore_glob = [] if os.environ.get("CAPACITY_BROWSER") == "1" and shutil.which("chromium") else ["test_*.py"]
