"""Opens what a run samples from."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from capacity.adapters.model import AdaptedModel
from capacity.errors import EngineError
from capacity.models.loading import model_folder
from capacity.plan.engine_memory import PROMPT_TOKENS, cache_bytes
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape
from capacity.plan.sampling import FOLDER, SERVER
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.sampler import Sampler
from capacity.sampling.vllm.engine import Engine
from capacity.sampling.vllm.follower import EngineSampler
from capacity.sampling.vllm.in_process import LocalEngine
from capacity.sampling.vllm.server import ServerEngine
from capacity.spec.run import RunSpec

_LOADED_AT_ONCE = 2  # adapters: the update of this step, and that of the step before until this one has arrived


@contextmanager
def opened_sampler(spec: RunSpec, adapted: AdaptedModel, tokenizer: Any, device: str) -> Iterator[Sampler]:
    """The sampler of a run, for as long as the context lasts.

    Raises:
        EngineError: vLLM is missing, refuses to start, or its server is unreachable.
    """
    if spec.rollouts is None:
        yield TransformersSampler(adapted, tokenizer)
        return
    dtype = spec.rollouts.dtype or parse_model(spec.model).dtype
    with tempfile.TemporaryDirectory(dir=os.environ.get(FOLDER)) as folder:
        engine = _engine(spec, adapted, device, dtype)
        try:
            yield EngineSampler(
                adapted, tokenizer, engine, spec.rollouts, dtype=dtype, folder=Path(folder), base=spec.model
            )
        finally:
            close_quietly(engine)


def close_quietly(engine: Engine) -> None:
    """Ends an engine; one that is gone already is no news."""
    try:
        engine.close()
    except EngineError:
        return


def _engine(spec: RunSpec, adapted: AdaptedModel, device: str, dtype: str) -> Engine:
    if SERVER in os.environ:
        return ServerEngine(os.environ[SERVER])
    assert spec.rollouts is not None
    rank = lora_rank(adapted) if spec.rollouts.sync == "hot-swap" else None
    new = max(spec.evaluation.max_new_tokens, spec.training.max_new_tokens if spec.training else 0)
    return open_local(adapted.bare, spec.model, device, dtype, rank=rank, adapters=_LOADED_AT_ONCE, new_tokens=new)


def open_local(
    bare: nn.Module, model: str, device: str, dtype: str, *, rank: int | None, adapters: int, new_tokens: int
) -> LocalEngine:
    """An engine in this process, with a cache as `capacity plan --rollouts vllm` plans it.

    Args:
        bare: the transformers model, for its context.
        model: its name.
        device: "cpu" or "cuda".
        dtype: of the engine's weights.
        rank: largest rank of the adapters; None for none.
        adapters: how many are loaded at once.
        new_tokens: of a completion, at most.
    """
    _, shape = model_shape(model)
    # One token more than the longest sequence: where the engine only scores it draws one all the same.
    tokens = PROMPT_TOKENS + new_tokens + 1
    context = getattr(bare.config, "max_position_embeddings", None) or tokens
    return LocalEngine(
        model_folder(model),
        dtype=dtype,
        context=min(int(context), tokens),
        rank=rank,
        adapters=adapters,
        cache_bytes=cache_bytes(shape, dtype, min(int(context), tokens)),
        sleeps=device == "cuda",
    )


def lora_rank(adapted: AdaptedModel) -> int | None:
    """The rank of an update as a LoRA adapter; None if it is none."""
    return next((a.shape[0] for _, a, _ in adapted.pairs()), None)
