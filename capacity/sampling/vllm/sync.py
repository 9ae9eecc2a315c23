"""What is sent to an engine so that it follows an update: a LoRA folder, or all weights with the update merged."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from capacity.adapters.files.merge import bare_parameters
from capacity.adapters.files.peft_folder import CONFIG, lora_tensors, save_peft_lora, save_tensors
from capacity.adapters.model import AdaptedModel
from capacity.models.loading import DTYPES


class LoraWriter:
    """Writes an update as a PEFT LoRA folder, again and again. Only the tensors change from one to the next.

    Args:
        adapted: the model with its update.
        folder: an existing, empty folder for all of them.
        dtype: of A and B: the engine's, which casts them to it anyway.
        base: name of the base.
    """

    def __init__(self, adapted: AdaptedModel, folder: Path, dtype: str, base: str) -> None:
        self.adapted, self.folder, self.dtype = adapted, folder, dtype
        first = folder / "first"
        first.mkdir()
        self.rank = save_peft_lora(adapted, first, "fp32", base)
        self.config = first / CONFIG

    def write(self, name: str) -> tuple[Path, int]:
        """The folder of the update as it is now, called `name`, and its bytes."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copyfile(self.config, folder / CONFIG)
        save_tensors(lora_tensors(self.adapted, self.dtype), folder)
        return folder, sum(path.stat().st_size for path in folder.iterdir())


def base_weights(adapted: AdaptedModel, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the untrained model, rounded to `dtype`."""
    state = adapted.base_state or {}
    for name, parameter in bare_parameters(adapted.bare):
        yield name, state.get(name, parameter.detach()).to(DTYPES[dtype])
