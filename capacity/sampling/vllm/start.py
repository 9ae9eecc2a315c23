"""Opens the sampler of a run: the trainer's own model, a vLLM in this process or a vLLM server."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capacity.adapters.model import AdaptedModel
from capacity.errors import EngineError
from capacity.models.loading import model_folder
from capacity.plan.engine_memory import ADAPTERS_OF_A_RUN, cache_bytes, engine_tokens
from capacity.plan.memory import longest_completion
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
        engine.rest()  # a run may train for long before it samples
        try:
            yield EngineSampler(
                adapted, tokenizer, engine, spec.rollouts, dtype=dtype, folder=Path(folder), base=spec.model
            )
        finally:
            close_quietly(engine)


def close_quietly(engine: Engine) -> None:
    """Ends an engine. It is no error if the engine is gone already."""
    try:
        engine.close()
    except EngineError:
        return


def _engine(spec: RunSpec, adapted: AdaptedModel, device: str, dtype: str) -> Engine:
    if SERVER in os.environ:
        return ServerEngine(os.environ[SERVER])
    assert spec.rollouts is not None
    rank = lora_rank(adapted) if spec.rollouts.sync == "hot-swap" else None
    new = longest_completion(spec)
    return open_local(spec.model, device, dtype, rank=rank, adapters=ADAPTERS_OF_A_RUN, new_tokens=new)


def open_local(model: str, device: str, dtype: str, *, rank: int | None, adapters: int, new_tokens: int) -> LocalEngine:
    """Starts an engine in this process, with a cache as `capacity plan --rollouts vllm` plans it.

    Args:
        model: name of the model.
        device: "cpu" or "cuda".
        dtype: dtype of the engine's weights.
        rank: largest rank of the adapters; None for an engine that takes none.
        adapters: how many adapters are loaded at once.
        new_tokens: length of a completion, at most.
    """
    _, shape = model_shape(model)
    tokens = engine_tokens(shape, new_tokens)
    return LocalEngine(
        model_folder(model),
        dtype=dtype,
        context=tokens,
        rank=rank,
        adapters=adapters,
        cache_bytes=cache_bytes(shape, dtype, tokens),
        sleeps=device == "cuda",
    )


def lora_rank(adapted: AdaptedModel) -> int | None:
    """The rank of an update as a LoRA adapter; None if the update is no LoRA adapter."""
    return next((a.shape[0] for _, a, _ in adapted.pairs()), None)
