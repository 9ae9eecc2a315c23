"""What this machine has, read without torch: cores, memory, room on disks, folders that can be written."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Returns the memory of the machine in bytes, or that of the container if it is less."""
    found = int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            found = min(found, int(path.read_text(encoding="ascii")))
    return found


def existing(path: Path) -> Path:
    """Returns a path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def free_bytes(path: Path) -> int:
    """Returns the room on the disk where a path is or would be, in bytes."""
    return shutil.disk_usage(existing(path)).free


def writable(path: Path) -> bool:
    """Tells whether a folder can be written, or can be made where it is to be."""
    found = existing(path)
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK)
