"""Models with an update on them: one that was trained, opened on its base, or a new one on a model of the user's."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from capacity.adapters.model import AdaptedModel
    from capacity.adapters.open import Opened
    from capacity.spec.adapters import Adapter


def load(path: str | Path | None = None, *, model: str | None = None, device: str | None = None) -> "Opened":
    """Opens a trained update on its base, or a model as it is.

    Args:
        path: a native artifact, the run folder that holds one, or a PEFT folder; None for a model as it is.
        model: name of the base; what the adapter names if None.
        device: "cpu" or "cuda"; a GPU if there is one, if None.

    Raises:
        SpecError: no such model, or neither a path nor a model.
        DataError: the update is unreadable, or was made on another base.
        CapacityError: the libraries of training are absent.
    """
    from capacity.adapters.open import open_model
    from capacity.studies import device as machine
    from capacity.studies.quiet import quiet

    machine.check_libraries()
    quiet()
    return open_model(model, None if path is None else Path(path), device or machine.device())


def attach(model: "nn.Module", adapter: "Adapter") -> "AdaptedModel":
    """Puts an untrained update on a loaded transformers model, which is changed in place.

    What is returned has the model to call and to train as `model`, by a trainer of TRL, say. Only the parameters of the
    update require a gradient.

    Args:
        model: a causal language model of transformers, in fp32, bf16 or fp16, or quantised by bitsandbytes.
        adapter: the update, such as `capacity.spec.adapters.TinyLora(u=1, groups=13, projection_seed=0)`.

    Raises:
        SpecError: the model has no such update.
    """
    from capacity.adapters.attach import attach as put
    from capacity.cache import cache_folder

    return put(model, adapter, cache_folder("factors"))
