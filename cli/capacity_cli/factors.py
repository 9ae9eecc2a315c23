"""`capacity factors`: the SVD factors of a local checkpoint, computed once and kept in the cache."""

import json
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from capacity.errors import DataError, Interrupted
from capacity.plan.sizes import parse_targets
from capacity.runs.resources import peak_memory
from capacity.studies.device import check_libraries
from capacity_cli.progress import ModuleProgress
from capacity_reports.tables import seconds

if TYPE_CHECKING:
    from torch import nn


def factors_command(folder: Path, rank: int, targets: str | None, *, as_json: bool) -> None:
    """Everything between the options and the printed result."""
    check_libraries()
    from capacity.adapters.linears import adapted_modules, check_rank, is_conv1d
    from capacity.adapters.svd.checkpoint import WeightFolder
    from capacity.cache import cache_folder

    began = time.monotonic()
    model = _skeleton(folder)
    modules = adapted_modules(model, parse_targets(targets))
    if not modules:
        raise DataError(f"{folder}: its model has no linear modules to factor")
    check_rank(rank, modules)
    transposed = {name for name, module in model.named_modules() if is_conv1d(module)}
    checkpoint, cache = WeightFolder(folder), cache_folder("factors")
    done = computed = 0
    try:
        with (
            ModuleProgress("factors") as progress,
            warnings.catch_warnings(record=True, category=RuntimeWarning) as caught,
            closing(checkpoint.stream_factors(modules, rank, cache, transposed)) as stream,
        ):
            warnings.simplefilter("always", RuntimeWarning)
            for name, _, new in stream:
                done, computed = done + 1, computed + new
                progress.on_module(done, len(modules), name)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: the factors of at least {done} of {len(modules)} modules are kept in {cache}; "
            "the same command continues"
        ) from None
    remarks = list(dict.fromkeys(str(w.message) for w in caught))
    wall, memory = time.monotonic() - began, peak_memory()
    if as_json:
        result = {
            "folder": str(folder),
            "rank": rank,
            "modules": len(modules),
            "computed": computed,
            "cached": done - computed,
            "seconds": round(wall, 2),
            "peak_memory_bytes": memory,
            "cache": str(cache),
            "warnings": remarks,
        }
        print(json.dumps(result, indent=1))
        return
    took = seconds(wall) if wall >= 10 else f"{wall:.1f} s"
    print(f"{len(modules)} modules at rank {rank}: {computed} computed, {done - computed} cached")
    print(f"{took}, peak memory {memory / 2**20:,.0f} MiB")
    print(f"Cache: {cache}")
    if remarks:
        print(f"{len(remarks)} warnings (all with --json), the first: {remarks[0]}")


def _skeleton(folder: Path) -> "nn.Module":
    """The model of a folder on the meta device: its modules without their weights."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.set_verbosity_error()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
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
