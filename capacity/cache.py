"""Where computed and downloaded files are kept between runs: the one place that knows `$CAPACITY_CACHE`."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """`$CAPACITY_CACHE/<name>`, else `capacity/<name>` under the user's cache folder. It may not exist yet.

    Args:
        name: "factors" (of SVDs), "models" (converted weights) or "data" (data sets).
    """
    root = os.environ.get("CAPACITY_CACHE")
    if root:
        return Path(root) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capacity" / name
