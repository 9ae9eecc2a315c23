"""What an update is on a model: sizes, groups, bytes and memory, from shapes alone. Offline, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from capacity.library.run_memory import RunMemory
from capacity.library.shown import Shown
from capacity.plan.defaults import default_run, default_size, default_weights
from capacity.plan.engine_memory import shared_plan
from capacity.plan.kinds.kind import Size
from capacity.plan.memory import gigabytes, longest_completion, parse_memory, run_memory
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.plan.models import ALIASES, model_shape
from capacity.plan.sampling import Choice, rollout_spec
from capacity.plan.sharing import group_sizes
from capacity.plan.sizes import SizeChoice, as_choice
from capacity.plan.storage import FIXED_SIZE_DTYPES, choice_bytes, payload_bytes
from capacity.spec.run import RunSpec
from capacity_reports.blocks import Block, Column, Table, Text

_OPTIONS = tuple(name for name in SizeChoice.model_fields if name not in ("budget", "adapter", "n_tie"))
_LARGE = 10**8  # bytes from which on they are shown in GB


@dataclass(frozen=True, repr=False)
class UpdatePlan(Shown):
    """An update of some size on a model.

    Attributes:
        model: name of the model, without options.
        shape: its shape.
        size: the update.
        memory: what a run that trains it needs.
        shared: it is to share its GPU with a vLLM engine.
    """

    model: str
    shape: ModelShape
    size: Size
    memory: RunMemory
    shared: bool

    @property
    def run(self) -> RunSpec:
        """A run that trains it, as `capacity compare` makes it."""
        return self.memory.run

    @cached_property
    def modules(self) -> list[dict[str, Any]]:
        """The adapted modules with their sides and the group of each, None for kinds without groups."""
        groups = self.size.group_of_module
        return [
            {"name": m.name, "d": m.d, "k": m.k, "group": None if groups is None else groups[i]}
            for i, m in enumerate(self.size.modules)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the modules."""
        options, groups = self.size.template.model_dump(), self.size.group_of_module
        count, bits = self.size.trained_parameters, self.size.template.choice_bits
        if (choice := options.get("choice")) is not None:
            options |= {"projection": "chosen", "projection_bits": choice["bits"], "projection_by": choice["by"]}
        plan: dict[str, Any] = {
            "model": self.model,
            "source": ALIASES[self.model].source if self.model in ALIASES else "folder",
            "family": self.shape.family,
            "model_parameters": self.shape.parameters,
            "weights_dtype": parse_model(self.run.model).dtype,
            "adapter": self.size.kind,
            "trained_parameters": self.size.trained_parameters,
            **{name: _listed(options.get(name)) for name in _OPTIONS},
            "adapted_modules": len(self.size.modules) or None,
            "group_sizes": [] if groups is None else list(group_sizes(groups)),
            "training_memory": self.memory.to_json(),
            "update_bytes": {d: payload_bytes(count, d) + choice_bytes(count, bits) for d in FIXED_SIZE_DTYPES},
        }
        if self.shared:
            plan["shared_memory"] = _shared_memory(self.run)
        return plan

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What it is, as people read it: a name and a text each."""
        shown = {**self.to_json(), "training_memory": self.memory.text}
        texts = ((key.replace("_", " "), _text(value)) for key, value in shown.items())
        return [(name, text) for name, text in texts if text]

    @property
    def line(self) -> str:
        """Model, kind and size."""
        return f"{self.model}, {self.size.kind}, {self.size.trained_parameters:,} trained parameters"

    @property
    def blocks(self) -> Sequence[Block]:
        """What it takes to store and to train, and a table of what it is."""
        table = Table("plan", "", (Column("what", ""), Column("value", "")), tuple(self.rows))
        return Text(self._said, strong=True), table

    @property
    def _said(self) -> tuple[str, ...]:
        """The size, the memory that training takes, and whether it fits the GPU that was named."""
        least = f"Training takes at least {gigabytes(self.memory.least.peak)} of memory, one sequence at a time."
        return (f"{self.line}.", least) if self.memory.fit is None else (f"{self.line}.", self.memory.fit)


def plan_update(
    model: str = "abacus",
    size: SizeChoice | int | str | None = None,
    *,
    storage_dtype: str = "bf16",
    memory: int | str | None = None,
    new_tokens: int | None = None,
    rollouts: Choice = "transformers",
) -> UpdatePlan:
    """Plans an update of a given budget or choice on a model.

    Args:
        model: alias, hub id of one, or folder with the config.json of a model.
        size: a budget (13, "26B"), or a choice part by part; at most 100 parameters if None. If it names no projection,
            `capacity.plan.defaults.default_size` does.
        storage_dtype: what a budget in bytes or bits is counted in.
        memory: of the GPU that training is to fit, in bytes or as "24GB".
        new_tokens: length of the longest completion; that of the model's default task if None.
        rollouts: what samples; "vllm" adds the memory that trainer and engine share.

    Raises:
        SpecError: no such model or update; the message says what to change.
    """
    available = parse_memory(memory) if isinstance(memory, str) else memory
    weights = default_weights(model)
    name, shape = model_shape(weights)
    found = default_size(weights, as_choice(size), storage_dtype)
    run = default_run(weights, found, storage_dtype, new_tokens)
    return UpdatePlan(name, shape, found, RunMemory(run, available), rollouts == "vllm")


def _shared_memory(run: RunSpec) -> dict[str, int | bool]:
    """Bytes of one device for the trainer, one sequence at a time, and a vLLM engine with 64 sequences in its cache.

    Raises:
        SpecError: vLLM cannot hold this base as the trainer does, or cannot follow the update.
    """
    _, shape = model_shape(run.model)
    rollout_spec("vllm", run.model, shape, "cuda", run.adapter)
    rank = getattr(run.adapter, "rank", None)  # of what is swapped
    dtype, new_tokens = parse_model(run.model).dtype, longest_completion(run)
    return shared_plan(shape, run_memory(run), dtype=dtype, rank=rank, new_tokens=new_tokens).to_json()


def _listed(value: object) -> object:
    """Several values as one text."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        sized = {key: gigabytes(v) if v >= _LARGE else f"{v:,} B" for key, v in value.items() if type(v) is int}
        return "\n".join(f"{key.replace('_', ' ')} {text}" for key, text in sized.items())
    if isinstance(value, list):
        return ", ".join(f"{size} × {len(list(same))}" for size, same in groupby(value))
    return str(value)
