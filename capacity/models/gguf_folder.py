"""Converts a GGUF file into a model folder that holds the numbers the file stands for, in fp32.

The factors and fingerprints of an adapter need a safetensors checkpoint, so a GGUF file is converted once.
"""

import shutil
from pathlib import Path

from filelock import FileLock

from capacity.errors import DataError
from capacity.models.base_files import content_digest
from capacity.plan.gguf_header import gguf_config

SCHEME = "1"  # of the conversion


def gguf_folder(path: Path, cache: Path) -> Path:
    """Returns the folder of the converted model and its tokenizer. The first call makes it.

    If another process is converting the file, the call waits for it.

    Raises:
        DataError: if the file cannot be read, or the cache cannot be written.
        CapacityError: if the package gguf is not installed.
    """
    gguf_config(path)
    return converted(path, cache / f"gguf-{path.stem}-{content_digest(path)[:12]}-{SCHEME}")


def converted(source: Path, folder: Path) -> Path:
    """Makes `folder` from the GGUF file `source`, unless it is there, and returns it.

    An interrupted conversion starts again from the beginning.

    Raises:
        DataError: if the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(source, folder)
    except OSError as error:
        raise DataError(f"{source}: cannot be converted into {folder.parent}: {error}") from None
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Writes `folder` in one step, by renaming a finished one. The caller holds the lock."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    from_gguf = {"gguf_file": source.name, "local_files_only": True}
    try:
        quantised = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **from_gguf)
        # A model that came from a GGUF is marked as quantised and cannot be saved; its numbers can, under a new config.
        config = quantised.config.to_dict()
        config.pop("quantization_config", None)
        model = type(quantised)(type(quantised.config)(**config))
        model.load_state_dict(quantised.state_dict())
        model.generation_config = quantised.generation_config
        model.save_pretrained(unfinished)
        AutoTokenizer.from_pretrained(source.parent, **from_gguf).save_pretrained(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
