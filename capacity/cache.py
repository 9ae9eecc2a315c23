"""Locates the cache of computed and downloaded files. No other module reads `$CAPACITY_CACHE`."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Returns the folder `$CAPACITY_CACHE/<name>`, which may not exist yet.

    If the variable is not set, it is `capacity/<name>` under the user's cache folder.

    Args:
        name: one of these words. "factors" holds SVDs, "models" converted weights, "data" data sets, and "bases"
            digests of weights. "checked" names runs that were checked. "finished" holds runs without room elsewhere.
    """
    root = os.environ.get("CAPACITY_CACHE")
    if root:
        return Path(root) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capacity" / name
