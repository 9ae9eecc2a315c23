"""All specs and records are immutable models. Their canonical JSON has exactly one spelling."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Frozen models are immutable. They refuse unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def canonical_json(value: Any) -> str:
    """Returns `value` as ASCII JSON with sorted keys and without spaces.

    Raises:
        ValueError: if the value holds a NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
