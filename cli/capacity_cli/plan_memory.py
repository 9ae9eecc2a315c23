"""The memory of a run, as `capacity plan` and `capacity models` show it: from shapes, before anything is loaded."""

import re
from typing import Any

from capacity.errors import SpecError
from capacity.plan.memory import PROMPT_TOKENS, advice, gigabytes, longest_completion, rows_that_fit, run_memory
from capacity.spec.run import RunSpec


def parse_memory(text: str) -> int:
    """Bytes of `24GB`, `80GB` or `40GiB`.

    Raises:
        SpecError: not of this form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB)\s*", text)
    if found is None or not float(found[1]):
        raise SpecError(f"--memory {text!r} cannot be read: write 24GB or 40GiB")
    return int(float(found[1]) * (10**9 if found[2] == "GB" else 2**30))


def memory_of(run: RunSpec, available: int | None = None) -> dict[str, Any]:
    """What a run takes, in bytes; with `available` also the rows of a step that fit at once, or what to change."""
    least = run_memory(run)
    found: dict[str, Any] = {
        "weights": least.weights,
        "update": least.update,
        "row": least.activations + least.logits,
        "cache_of_a_sequence": least.cache,
        "least": least.peak,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": longest_completion(run),
    }
    if available is not None:
        found["available"] = available
        found["advice"] = advice(least, available)
        found["rows_at_once"] = rows_that_fit(run, available)
    return found


def memory_text(memory: dict[str, Any]) -> str:
    """What `memory_of` found, in words."""
    return "\n".join(
        [
            f"weights {gigabytes(memory['weights'])}, update {gigabytes(memory['update'])}",
            f"a sequence of {memory['prompt_tokens']:,} + {memory['new_tokens']:,} tokens in a step "
            f"{gigabytes(memory['row'])}, sampled {gigabytes(memory['cache_of_a_sequence'])}",
            f"at least {gigabytes(memory['least'])}, one sequence at a time",
        ]
    )


def fit_text(memory: dict[str, Any]) -> str:
    """Says whether training fits the GPU that was named, and what to change if not."""
    rows, given = memory["rows_at_once"], gigabytes(memory["available"])
    return f"Training {memory['advice'] or f'fits {given}, with {rows:,} sequences of a step at a time'}."
