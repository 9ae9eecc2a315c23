"""Shared pieces of the tests that need torch. The embedded models are loaded once and copied."""

import copy
import os
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from console import CAPACITY, run

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads anything

# These need packages of their own, and time: `make test-real`.
REAL = ["test_smollm2.py", "test_real_model.py", "test_quantised.py", "test_evaluate_real.py"]
collect_ignore = [] if os.environ.get("CAPACITY_REAL") else REAL


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, so that they neither use nor fill the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CAPACITY_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def workers_from_a_server() -> Iterator[None]:
    """Workers are forked from a process that has imported what all of them need, once for all tests of this process.

    Commands start each worker anew, which takes seconds. Tests that are about that ask for `workers_of_commands`.
    """
    from capacity.studies import workers

    context = get_context("forkserver")
    context.set_forkserver_preload(["capacity.training.run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "get_context", lambda _: context)
        yield


@pytest.fixture
def workers_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started as commands start them, each in a new interpreter."""
    from capacity.studies import workers

    monkeypatch.setattr(workers, "get_context", get_context)


@pytest.fixture
def capacity(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the command `capacity` in an empty folder."""
    return lambda *arguments: run([CAPACITY, *arguments], tmp_path)


def _loaded(alias: str) -> tuple[Any, Any]:
    import torch

    from capacity.models.loading import load
    from capacity.studies.quiet import quiet

    quiet()
    torch.set_num_threads(1)
    return load(alias, "cpu")


@pytest.fixture(scope="session")
def loaded() -> tuple[Any, Any]:
    return _loaded("abacus")


@pytest.fixture(scope="session")
def loaded_smallest() -> tuple[Any, Any]:
    return _loaded("abacus-0.2m")


@pytest.fixture
def tokenizer(loaded: tuple[Any, Any]) -> Any:
    return loaded[1]


@pytest.fixture
def model(loaded: tuple[Any, Any]) -> Any:
    """A fresh copy of the untrained embedded model."""
    return copy.deepcopy(loaded[0])


@pytest.fixture
def smallest(loaded_smallest: tuple[Any, Any]) -> Any:
    """A fresh copy of the smallest embedded model, for tests in which the size does not matter."""
    return copy.deepcopy(loaded_smallest[0])
