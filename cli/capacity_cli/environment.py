"""What commands that compute need of the machine: the libraries of the extra `train`, and a device."""

from importlib.util import find_spec

from capacity.errors import CapacityError


def check_libraries() -> None:
    """Whether everything that training needs is installed.

    Raises:
        CapacityError: names what is absent, and how to get it.
    """
    absent = [n for n in ("torch", "transformers", "trl", "peft", "datasets", "accelerate") if find_spec(n) is None]
    if absent:
        raise CapacityError(f"this command needs {', '.join(absent)}: pip install 'sft-rl-capacity[train]'")


def device() -> str:
    """The device that runs use here: the first GPU if torch sees one."""
    if find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
