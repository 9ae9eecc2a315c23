"""Measures what this process has used of the machine. It does not import torch."""

import resource
import sys


def peak_memory() -> int:
    """Returns the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
