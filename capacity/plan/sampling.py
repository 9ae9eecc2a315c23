"""Which engine samples for a run, as `--rollouts` says. No torch."""

import os
from importlib.util import find_spec
from typing import Literal, cast, get_args

from capacity.errors import SpecError, unknown
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.spec.adapters import AdapterSpec
from capacity.spec.parts import SYNCS, RolloutSpec
from capacity.spec.run import RunSpec

Choice = Literal["auto", "transformers", "vllm"]
SERVER = "CAPACITY_VLLM_URL"  # of a running server; without it vLLM runs in the process of the run
FOLDER = "CAPACITY_VLLM_FOLDER"  # where adapters are put for the engine to read; the system's temporary one if unset
_LARGE = 300_000_000  # parameters from which on vLLM is worth its start


def parse_choice(text: str) -> Choice:
    """Reads the option `--rollouts`.

    Raises:
        SpecError: the choice is unknown.
    """
    if text not in get_args(Choice):
        raise unknown("--rollouts", text, get_args(Choice))
    return cast(Choice, text)


def rollout_spec(
    choice: Choice, model: str, shape: ModelShape, device: str, adapter: AdapterSpec
) -> RolloutSpec | None:
    """Where the runs of a model and an adapter get their samples; None for the trainer's own model.

    "auto" takes vLLM on a GPU if it is installed or a server is named. The model must have 300 million parameters or
    more, and vLLM must be able to follow the adapter.

    Raises:
        SpecError: vLLM is chosen for a base that it cannot hold as the trainer does, or an adapter that it cannot
            follow.
    """
    if choice == "auto":
        there = SERVER in os.environ or find_spec("vllm") is not None
        fits = device == "cuda" and shape.parameters >= _LARGE and parse_model(model).quantised is None
        choice = "vllm" if there and fits and SYNCS[adapter.form] else "transformers"
    if choice == "transformers":
        return None
    if parse_model(model).quantised is not None:
        raise SpecError(
            f"{model}: vLLM does not quantise as bitsandbytes does in the trainer, so it would sample from another "
            "base: use --rollouts transformers"
        )
    check_followed(adapter)
    return RolloutSpec()


def with_rollouts(spec: RunSpec, rollouts: RolloutSpec | None) -> RunSpec:
    """The same run with its samples from `rollouts`. Updates that are no LoRA adapters are merged.

    Raises:
        SpecError: no other engine can follow the update.
    """
    if rollouts is None:
        return spec
    check_followed(spec.adapter)
    ways = SYNCS[spec.adapter.form]
    if rollouts.sync not in ways:
        rollouts = rollouts.model_copy(update={"sync": ways[0]})
    return RunSpec.model_validate({**spec.model_dump(), "rollouts": rollouts.model_dump()})


def check_followed(adapter: AdapterSpec) -> None:
    """Checks that vLLM can follow the update.

    Raises:
        SpecError: it cannot.
    """
    if not SYNCS[adapter.form]:
        raise SpecError(
            f"adapter {adapter.kind} changes hidden states, and vLLM takes LoRA adapters and weights only: "
            "use --rollouts transformers"
        )
