"""Stored updates for tests, with a random or a chosen projection; nothing here trains."""

import copy
from typing import Any

import torch

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.layout import EVEN, Layout
from capacity.spec.adapters import Adapter, ProjectionChoice, TinyLora

CHOSEN = TinyLora(groups=13, u=1, projection_seed=7, choice=ProjectionChoice(bits=8))
NUMBERS = tuple(range(13))


def updated(base: Any, adapter: Adapter, layout: Layout = EVEN, start: float = 0.1) -> tuple[Any, bytes]:
    """A model with an update from −start to start, and the bytes of its artifact in bf16."""
    adapted = attach(copy.deepcopy(base), adapter, None, layout=layout)
    adapted.set_vector(torch.linspace(-start, start, adapted.trained_parameters))
    payload = artifact.store(adapted, "bf16")
    return adapted, artifact.pack(
        adapted, payload, model="abacus-0.9m", base=artifact.base_fingerprint(base), dtype="bf16"
    )
