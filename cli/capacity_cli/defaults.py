"""What `capacity compare` takes for a model where nothing is said."""

from dataclasses import replace

from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape, resolve
from capacity.plan.rates import is_embedded

_LARGE = 10**9  # parameters from which on weights are held in bf16


def default_task(model: str) -> str:
    """The test bed for the embedded models, word problems for all others."""
    return "abacus" if is_embedded(model) else "gsm8k"


def default_weights(given: str) -> str:
    """The model's resolved name, with bf16 weights if it is large and the name does not say another dtype.

    Raises:
        SpecError: no such model.
    """
    name = resolve(given)
    if "dtype=" in given or model_shape(name)[1].parameters < _LARGE:
        return name
    return str(replace(parse_model(name), dtype="bf16"))
