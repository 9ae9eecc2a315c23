"""Models with an update on them: one that was trained, opened on its base, or a new one on a model of the user's."""

from pathlib import Path
from typing import TYPE_CHECKING

from capacity.plan.model_shapes import shape_from_config
from capacity.plan.sizes import SizeChoice, as_choice, size_on

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


def attach(
    model: "nn.Module", update: "Adapter | SizeChoice | int | str | None" = None, *, seed: int = 0
) -> "AdaptedModel":
    """Puts an untrained update on a loaded transformers model, which is changed in place.

    What is returned has the model to call and to train as `model`, for a trainer of TRL, say. Only the parameters of
    the update require a gradient.

    Args:
        model: a causal language model of transformers, in fp32, bf16 or fp16, or quantised by bitsandbytes.
        update: a spec of `capacity.spec.adapters`, a budget (13, "26B"), or a choice part by part; at most 100
            parameters if None.
        seed: of its random parts, where its size is given.

    Raises:
        SpecError: the model has no such update.
    """
    from capacity.adapters.attach import attach as put
    from capacity.cache import cache_folder
    from capacity.spec.adapters import AdapterSpec

    adapter = update if isinstance(update, AdapterSpec) else _adapter(model, as_choice(update), seed)
    return put(model, adapter, cache_folder("factors"))


def _adapter(model: "nn.Module", choice: SizeChoice, seed: int) -> "Adapter":
    """The spec of an update of this size on a loaded model."""
    config = model.config.to_dict()  # type: ignore[operator, union-attr]
    name = str(config.get("_name_or_path") or type(model).__name__)
    return size_on(name, shape_from_config(config, name), choice, "bf16").adapter(seed)
