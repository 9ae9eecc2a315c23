"""The memory of training, for `capacity plan`: from shapes, before anything is loaded."""

import re
from typing import Any

from capacity.errors import SpecError
from capacity.plan.kinds.kind import Size
from capacity.plan.memory import advice, gigabytes, memory_plan, rows_at_once
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape


def parse_memory(text: str) -> int:
    """Bytes of `24GB`, `80GB` or `40GiB`.

    Raises:
        SpecError: not of this form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB)\s*", text)
    if found is None or not float(found[1]):
        raise SpecError(f"--memory {text!r} cannot be read: write 24GB or 40GiB")
    return int(float(found[1]) * (10**9 if found[2] == "GB" else 2**30))


def memory_of(
    shape: ModelShape, size: Size, model: str, tokens: tuple[int, int], available: int | None
) -> dict[str, Any]:
    """What training takes, in bytes; with `available` also the rows of a step that fit at once, or what to change."""
    named, (prompt, new) = parse_model(model), tokens
    trained, full = size.trained_parameters, size.template.every_weight
    least = memory_plan(
        shape,
        trained=trained,
        sequences=1,
        micro_batch=1,
        prompt_tokens=prompt,
        new_tokens=new,
        dtype=named.dtype,
        quantised=named.quantised,
        full=full,
    )
    found: dict[str, Any] = {
        "weights": least.weights,
        "update": least.update,
        "row": least.activations + least.logits,
        "cache_of_a_sequence": least.cache,
        "least": least.peak,
    }
    if available is not None:
        found["available"] = available
        found["advice"] = advice(least, available)
        found["rows_at_once"] = rows_at_once(
            shape,
            prompt_tokens=prompt,
            new_tokens=new,
            dtype=named.dtype,
            resident=least.weights + least.update,
            device_bytes=available,
        )
    return found


def memory_text(memory: dict[str, Any], tokens: tuple[int, int]) -> str:
    """In words."""
    prompt, new = tokens
    return "\n".join(
        [
            f"weights {gigabytes(memory['weights'])}, update {gigabytes(memory['update'])}",
            f"a sequence of {prompt:,} + {new:,} tokens in a step {gigabytes(memory['row'])}, "
            f"sampled {gigabytes(memory['cache_of_a_sequence'])}",
            f"at least {gigabytes(memory['least'])}",
        ]
    )


def fit_text(memory: dict[str, Any]) -> str:
    """Whether it fits the GPU that was named, and what to change if not."""
    rows, given = memory["rows_at_once"], gigabytes(memory["available"])
    return f"Training {memory['advice'] or f'fits {given}, with {rows:,} sequences of a step at a time'}."
