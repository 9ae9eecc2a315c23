"""Writes what an engine is sent so that it follows an update without merging it: a LoRA folder a step."""

import shutil
from pathlib import Path

from capacity.adapters.files.peft_folder import CONFIG, lora_tensors, save_peft_lora, save_tensors
from capacity.adapters.model import AdaptedModel


class LoraWriter:
    """Writes an update as a PEFT LoRA folder, again and again. Only the tensors change from one to the next.

    Args:
        adapted: the model with its update.
        folder: an existing, empty folder for all of them.
        dtype: dtype of A and B; it is the engine's, which casts them to it anyway.
        base: name of the base.
    """

    def __init__(self, adapted: AdaptedModel, folder: Path, dtype: str, base: str) -> None:
        self.adapted, self.folder, self.dtype = adapted, folder, dtype
        first = folder / "first"
        first.mkdir()
        self.rank = save_peft_lora(adapted, first, "fp32", base)
        self.config = first / CONFIG

    def write(self, name: str) -> tuple[Path, int]:
        """Writes the update as it is now into a folder called `name`. Returns the folder and its size in bytes."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copyfile(self.config, folder / CONFIG)
        save_tensors(lora_tensors(self.adapted, self.dtype), folder)
        return folder, sum(path.stat().st_size for path in folder.iterdir())
