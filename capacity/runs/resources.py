"""What this process has used of the machine. No torch."""

import resource
import sys


def peak_memory() -> int:
    """Its largest resident memory so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
