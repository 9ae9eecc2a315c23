"""Loading a model and its tokenizer by alias."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from capacity.models.aliases import check_trainable, resolve


def embedded_folder(alias: str) -> Path:
    """The folder of a model that is shipped in the package."""
    return Path(str(files("capacity.models"))) / "data" / alias


def load(name: str, device: str) -> tuple[nn.Module, Any]:
    """Model in fp32 on `device`, in evaluation mode, and its tokenizer.

    Raises:
        SpecError: unknown name, or a model that can be planned but not trained yet.
    """
    alias = resolve(name)
    check_trainable(alias)
    folder = embedded_folder(alias)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    # AutoTokenizer puts Qwen2's byte-level splitting onto whatever tokenizer a Qwen2 model has.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return model.to(device).eval(), tokenizer
