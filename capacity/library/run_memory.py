"""The memory of a run, as plans and models show it: from shapes, before anything is loaded."""

from dataclasses import dataclass
from typing import Any

from capacity.plan.memory import (
    PROMPT_TOKENS,
    MemoryPlan,
    advice,
    gigabytes,
    longest_completion,
    rows_that_fit,
    run_memory,
)
from capacity.spec.run import RunSpec


@dataclass(frozen=True)
class RunMemory:
    """What a run needs, one sequence at a time.

    Attributes:
        run: the run.
        available: bytes of the GPU that it is to fit; None if that was not asked.
    """

    run: RunSpec
    available: int | None = None

    @property
    def least(self) -> MemoryPlan:
        """The memory by what it is for."""
        return run_memory(self.run)

    def to_json(self) -> dict[str, Any]:
        """Bytes as plain JSON types; with `available` also the rows of a step that fit at once, and advice."""
        least = self.least
        found: dict[str, Any] = {
            "weights": least.weights,
            "update": least.update,
            "row": least.activations + least.logits,
            "cache_of_a_sequence": least.cache,
            "least": least.peak,
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": longest_completion(self.run),
        }
        if self.available is not None:
            found["available"] = self.available
            found["advice"] = advice(least, self.available)
            found["rows_at_once"] = rows_that_fit(self.run, self.available)
        return found

    @property
    def text(self) -> str:
        """The parts in words, a line each."""
        least = self.least
        return "\n".join(
            [
                f"weights {gigabytes(least.weights)}, update {gigabytes(least.update)}",
                f"a sequence of {PROMPT_TOKENS:,} + {longest_completion(self.run):,} tokens in a step "
                f"{gigabytes(least.activations + least.logits)}, sampled {gigabytes(least.cache)}",
                f"at least {gigabytes(least.peak)}, one sequence at a time",
            ]
        )

    @property
    def fit(self) -> str | None:
        """Whether training fits the GPU that was named, and what to change if not; None if none was named."""
        if self.available is None:
            return None
        rows = rows_that_fit(self.run, self.available)
        fits = f"fits {gigabytes(self.available)}, with {rows:,} sequences of a step at a time"
        return f"Training {advice(self.least, self.available) or fits}."
