"""`capacity factors`: the SVD factors of a local checkpoint, computed once and kept in the cache."""

from pathlib import Path
from typing import Annotated

import typer

from capacity_cli.options import Json, Targets


def factors(
    folder: Annotated[Path, typer.Argument(help="Folder of a model in safetensors format.")],
    rank: Annotated[int, typer.Option(min=1, help="Singular triplets of each module.")] = 2,
    targets: Targets = None,
    json: Json = False,
) -> None:
    """Compute and cache the SVD factors of a local checkpoint, several modules at once."""
    from capacity.library.factors import cache_factors
    from capacity.plan.sizes import parse_targets
    from capacity_cli.output import print_json
    from capacity_cli.progress import ModuleProgress
    from capacity_reports.blocks import duration

    done = cache_factors(folder, rank, parse_targets(targets), progress=ModuleProgress)
    if json:
        print_json(done.to_json())
        return
    took = duration(done.seconds) if done.seconds >= 10 else f"{done.seconds:.1f} s"
    print(f"{done.modules} modules at rank {rank}: {done.computed} computed, {done.cached} cached")
    print(f"{took}, peak memory {done.peak_memory_bytes / 2**20:,.0f} MiB")
    print(f"Cache: {done.cache}")
    if done.warnings:
        print(f"{len(done.warnings)} warnings (all with --json), the first: {done.warnings[0]}")
