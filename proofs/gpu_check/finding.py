"""What a part of the check finds: one line of the table."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "fault", "not run", "measured"]


@dataclass(frozen=True)
class Finding:
    """A finding says what was measured, within which bound, and whether it is a fault."""

    part: str
    what: str
    measured: str
    bound: str
    verdict: Verdict

    @classmethod
    def not_run(cls, part: str, what: str, why: str) -> "Finding":
        """Returns a finding for something that could not be measured."""
        return cls(part, what, why, "", "not run")


def within(part: str, what: str, value: float, low: float, high: float, unit: str = "") -> Finding:
    """Returns a finding for a number that should lie between two bounds. A number that is not finite is a fault."""
    good = math.isfinite(value) and low <= value <= high
    bound = f"≤ {high:g}" if low == -math.inf else f"{low:g} to {high:g}"
    return Finding(part, what, f"{value:.3g}{unit}", f"{bound}{unit}", "ok" if good else "fault")


def tried(part: str, what: str, make: Callable[[], list[Finding]]) -> list[Finding]:
    """Returns what `make` finds. Whatever it raises is a fault, and the check goes on."""
    try:
        return make()
    except Exception as error:  # a check must survive what it looks for: out of memory, wrong devices, failed kernels
        return [failed(part, what, error)]


def failed(part: str, what: str, error: Exception) -> Finding:
    """Returns the finding that something has raised an error."""
    lines = f"{type(error).__name__}: {error}".splitlines()
    return Finding(part, what, lines[0][:160], "no error", "fault")
