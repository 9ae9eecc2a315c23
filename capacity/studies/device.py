"""The device that runs use on this machine, and whether the libraries are there that they need. Imports no torch."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from capacity.errors import CapacityError
from capacity.runs.fingerprint import Trainer

_LIBRARIES = ("torch", "transformers", "peft", "accelerate")
_OF_TRL = ("trl", "datasets")
# In /dev: what the drivers of NVIDIA, of Jetson, of Windows for Linux and of AMD make.
_GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")


def check_libraries(trainer: Trainer = "loop") -> None:
    """Checks that everything that training needs is installed: the extra `train`.

    Args:
        trainer: what makes the steps.

    Raises:
        CapacityError: names what is absent, and how to get it.
    """
    needed = (*_LIBRARIES, *_OF_TRL) if trainer == "trl" else _LIBRARIES
    absent = [name for name in needed if find_spec(name) is None]
    if absent:
        missing = ", ".join(absent)
        raise CapacityError(f"this command needs {missing}: run pip install '.[train]' in the sources of capacity")


def device() -> str:
    """The device that runs use here: "cuda" if torch sees a GPU, else "cpu".

    Without a driver torch sees none, so torch is imported only where there is one.
    """
    if find_spec("torch") is None or ("torch" not in sys.modules and not _has_driver()):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_driver() -> bool:
    return any(next(Path("/dev").glob(pattern), None) for pattern in _GPU_FILES)


def gpus() -> tuple[str, ...]:
    """Returns the GPUs that torch sees here, in its order, as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    if device() == "cpu":
        return ()
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count] or map(str, range(count)))


def keep_one_gpu(name: str | None = None) -> None:
    """Hides all GPUs but one from this process, whose runs take one each. Call it before torch is imported.

    Args:
        name: the GPU, as CUDA_VISIBLE_DEVICES names it; the first that this process may see if None.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = first if name is None else name


def take_share(share: float) -> None:
    """Limits this process to a share of the memory of its GPU, which several processes use."""
    import torch

    if share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def own_device() -> str:
    """The device of one of several processes that make a run together: with GPUs, the one that its number names."""
    import torch

    found = device()
    if found == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return found
