"""The answer where there is no number: why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Absent:
    """Stands where a number would: `reason` completes "not measured: …" or "cannot be estimated: …"."""

    reason: str
