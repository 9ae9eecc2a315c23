"""What a run is where nothing is said. Every command asks here, so that all of them mean the same run. No torch."""

from dataclasses import replace

from capacity.plan.kinds.kind import Size
from capacity.plan.kinds.tinylora import LARGEST_CHOSEN
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape, resolve
from capacity.plan.rates import is_embedded
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import parse_task

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


def default_size(model: str, choice: SizeChoice, storage_dtype: str) -> Size:
    """What `choice` comes to where it need not name a projection.

    A TinyLoRA then has a chosen projection if it belongs to an embedded model and has at most 168 parameters. There
    studies found chosen projections better (docs/abacus-message.md, docs/abacus-sizes.md). Others have a random one.

    Args:
        model: its name.
        choice: what is asked for.
        storage_dtype: dtype of the payload that a budget in bytes or bits limits.

    Raises:
        SpecError: as `capacity.plan.sizes.size_of`.
    """
    if choice.projection is not None or not is_embedded(model):
        return size_of(model, choice, storage_dtype)
    random = choice.model_copy(update={"projection_bits": None, "projection_by": None})
    found = size_of(model, random, storage_dtype)
    if isinstance(found.template, TinyLora) and found.trained_parameters <= LARGEST_CHOSEN:
        choice = choice.model_copy(update={"projection": "chosen"})
    return size_of(model, choice, storage_dtype)


def default_run(model: str, size: Size, storage_dtype: str = "bf16", new_tokens: int | None = None) -> RunSpec:
    """A run as `capacity compare` makes it on a model: the model's default task under the protocol that is shipped.

    It stands for the runs of every method: they need the same memory.

    Args:
        model: its name, from `default_weights`.
        size: of the update.
        storage_dtype: of the stored update.
        new_tokens: the longest completion, if it is not to be the task's own.
    """
    task = parse_task(default_task(model))
    run = trained_spec(model, task, "grpo", size, 0, storage_dtype, rates={"grpo": 1.0})  # no rate changes the memory
    if new_tokens is None:
        return run
    assert run.training is not None
    changed = {"max_new_tokens": new_tokens}
    parts = {
        "training": run.training.model_copy(update=changed),
        "evaluation": run.evaluation.model_copy(update=changed),
    }
    return run.model_copy(update=parts)
