"""The SVD factors of a local checkpoint, computed once and kept in the cache that training uses."""

import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import DataError, Interrupted, MissingPathError, by_interruption
from capacity.library.progress import Progress, silent
from capacity.runs.resources import peak_memory
from capacity.studies.device import check_libraries

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CachedFactors:
    """The factors of a checkpoint.

    Attributes:
        folder: the checkpoint.
        rank: singular triplets of each module.
        modules: how many modules have factors.
        computed: how many of them were not in the cache.
        seconds: wall time.
        peak_memory_bytes: of this process.
        cache: where they are.
        warnings: of singular values that lie too close, each once.
    """

    folder: Path
    rank: int
    modules: int
    computed: int
    seconds: float
    peak_memory_bytes: int
    cache: Path
    warnings: tuple[str, ...]

    @property
    def cached(self) -> int:
        """How many modules' factors were in the cache already."""
        return self.modules - self.computed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "folder": str(self.folder),
            "rank": self.rank,
            "modules": self.modules,
            "computed": self.computed,
            "cached": self.cached,
            "seconds": round(self.seconds, 2),
            "peak_memory_bytes": self.peak_memory_bytes,
            "cache": str(self.cache),
            "warnings": list(self.warnings),
        }


def cache_factors(
    folder: Path, rank: int = 2, targets: tuple[str, ...] | None = None, *, progress: Progress = silent
) -> CachedFactors:
    """Computes the factors of every linear module that are not in the cache yet.

    Args:
        folder: a model in safetensors format.
        rank: singular triplets of each module.
        targets: types of the modules; all linear modules if None.
        progress: hears what is done.

    Raises:
        SpecError: a rank above a module's sides, or an unknown type.
        DataError: not the folder of such a model.
        Interrupted: Ctrl-C; the factors that were computed are kept.
        CapacityError: the libraries of training are absent.
    """
    check_libraries()
    from capacity.adapters.linears import adapted_modules, check_rank, is_conv1d
    from capacity.adapters.svd.checkpoint import WeightFolder
    from capacity.cache import cache_folder

    began = time.monotonic()
    model = _skeleton(folder)
    modules = adapted_modules(model, targets)
    if not modules:
        raise DataError(f"{folder}: its model has no linear modules to factor")
    check_rank(rank, modules)
    transposed = {name for name, module in model.named_modules() if is_conv1d(module)}
    checkpoint, cache = WeightFolder(folder), cache_folder("factors")
    done = computed = 0
    try:
        with (
            progress("factors") as count,
            warnings.catch_warnings(record=True, category=RuntimeWarning) as caught,
            closing(checkpoint.stream_factors(modules, rank, cache, transposed)) as stream,
        ):
            warnings.simplefilter("always", RuntimeWarning)
            for name, _, new in stream:
                done, computed = done + 1, computed + new
                count.on_module(done, len(modules), name)
    except (Exception, KeyboardInterrupt) as error:
        if not by_interruption(error):
            raise
        raise Interrupted(
            f"interrupted: the factors of at least {done} of {len(modules)} modules are kept in {cache}; "
            "the same command continues"
        ) from None
    remarks = tuple(dict.fromkeys(str(w.message) for w in caught))
    seconds = time.monotonic() - began
    return CachedFactors(folder, rank, len(modules), computed, seconds, peak_memory(), cache, remarks)


def _skeleton(folder: Path) -> "nn.Module":
    """The model of a folder on the meta device: its modules without their weights."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.set_verbosity_error()
    if not folder.is_dir():
        raise MissingPathError(f"{folder}: no such folder")
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json: give the folder of a model as transformers saves it")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises many kinds for a config that it cannot use
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{folder / 'config.json'}: not the config of a causal language model: {first}") from None
    return model
