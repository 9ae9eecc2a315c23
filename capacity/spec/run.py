"""Frozen specs say what a run is. All of their fields, and nothing else, make up the identity of the run.

A run = model × task × method × adapter × learning rate × seed under one protocol. Its identity is the SHA-256 of the
canonical JSON of its spec. Workers, paths and devices never change it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, get_args

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from capacity.errors import DataError
from capacity.spec.adapters import Adapter, StorageDtype
from capacity.spec.faults import fault_of
from capacity.spec.frozen import Frozen, canonical_json
from capacity.spec.methods import METHODS, Method, Part
from capacity.spec.parts import (
    SYNCS,
    EvaluationSpec,
    GrpoSpec,
    RftSpec,
    RolloutSpec,
    Seed,
    TaskSpec,
    TrainingSpec,
    WarmStartSpec,
)

SCHEMA_VERSION = 3


class RunSpec(Frozen):
    """A run spec says what one run is. `training` is None for the methods that train nothing.

    These are "base", which has no adapter, and "zero", whose adapter is that of trained runs with zeros in it.

    `grpo`, `rft` and `warm_start` are given for the methods whose row in `METHODS` names them, and only for those.
    """

    schema_version: Literal[3] = 3
    model: str
    task: TaskSpec
    method: Method
    adapter: Adapter
    storage_dtype: StorageDtype
    training: TrainingSpec | None
    grpo: GrpoSpec | None = None
    rft: RftSpec | None = None
    warm_start: WarmStartSpec | None = None
    evaluation: EvaluationSpec
    seed: Seed
    rollouts: RolloutSpec | None = None

    @model_serializer(mode="wrap")
    def _without_absent_rollouts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves `rollouts` out of the JSON if it is None.

        Runs that sample from the trainer's own model so keep the identity that they had before `rollouts` existed.
        """
        fields: dict[str, Any] = handler(self)
        if self.rollouts is None:
            fields.pop("rollouts")
        return fields

    @model_validator(mode="after")
    def _parts_belong_to_the_method(self) -> "RunSpec":
        trains, adapts = METHODS[self.method].trains, self.method != "base"
        if (self.training is not None) != trains or (self.adapter.kind != "none") != adapts:
            wanted = {(True, True): "needs training and adapter", (False, True): "needs an adapter and has no training"}
            raise ValueError(f'method "{self.method}" {wanted.get((trains, adapts), "has no training and adapter")}')
        for part in get_args(Part):
            if (getattr(self, part) is not None) != (part in METHODS[self.method].parts):
                owners = ", ".join(name for name, facts in METHODS.items() if part in facts.parts)
                raise ValueError(f"the {part} part belongs to {owners}, and only there")
        if (self.task.demonstrations == "none") == METHODS[self.method].sees_demonstrations:
            raise ValueError(
                f'method "{self.method}" and demonstrations "{self.task.demonstrations}" do not go together'
            )
        ways = SYNCS[self.adapter.form]
        if self.rollouts is not None and not ways:
            raise ValueError(f"an update of kind {self.adapter.kind} changes hidden states: no engine can follow it")
        if self.rollouts is not None and self.rollouts.sync not in ways:
            raise ValueError(f'an update of kind {self.adapter.kind} is no LoRA adapter: its rollouts are "merged"')
        if self.method == "sft+grpo" and self.training is not None and self.training.steps < 2:
            raise ValueError("sft+grpo takes at least two steps")
        return self

    def canonical_json(self) -> str:
        """Returns the spec as JSON with sorted keys and without spaces. The identity is the hash of this text."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def identity(self) -> str:
        """Returns the SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def short_id(self) -> str:
        """Returns the first 16 hex digits of the identity. The folder of the run has this name."""
        return self.identity[:16]

    @property
    def label(self) -> str:
        """Returns a short description of the run for progress lines and tables."""
        size = f"T={self.evaluation.temperature:g}" if self.adapter.kind == "none" else self.adapter.label
        return f"{self.method} {size} seed {self.seed}"


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Turns a spec of version 1 into one of version 2.

    Version 2 added adapters, and gave tinylora `targets` and `allocation`. Their defaults mean what version 1 did.
    """
    return {**raw, "schema_version": 2}


def _from_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Turns a spec of version 2 into one of version 3.

    Version 3 added methods. It names the demonstrations only for methods that see them. The abacus task of version 2
    had no fillers, and its worked demonstrations reversed the odds of all words.
    """
    task = {**raw["task"], "options": {}}
    if not METHODS[raw["method"]].sees_demonstrations:
        task["demonstrations"] = "none"
    elif task["demonstrations"] == "worked":
        task["options"] = {"style_bits": 0.0, "style_shift": 4.857359312880716}
    return {**raw, "schema_version": 3, "task": task}


# Schema version v → the function that turns a stored spec of version v into one of version v + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}


def load_spec(raw: Any, where: str) -> RunSpec:
    """Returns a stored spec, migrated to the current schema version.

    Args:
        raw: the decoded JSON, of any type.
        where: the file that the JSON came from, for the error message.

    Raises:
        DataError: if `raw` is not a spec, or has a schema version that this program does not know.
    """
    if not isinstance(raw, dict):
        raise DataError(f"{where}: not a spec")
    version = raw.get("schema_version")
    while isinstance(version, int) and version != SCHEMA_VERSION and version in MIGRATIONS:
        try:
            raw = MIGRATIONS[version](raw)
        except (KeyError, TypeError):
            raise DataError(f"{where}: not a valid spec of schema version {version}") from None
        version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{where}: spec of schema version {version}, this program reads {SCHEMA_VERSION}")
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{where}: not a valid spec: {fault_of(error, RunSpec)}") from None
