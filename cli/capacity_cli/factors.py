"""`capacity factors`: the SVD factors of a local checkpoint, computed once and kept in the cache."""

import json
from pathlib import Path

from capacity.library.factors import cache_factors
from capacity.plan.sizes import parse_targets
from capacity_cli.progress import ModuleProgress
from capacity_reports.tables import seconds


def factors_command(folder: Path, rank: int, targets: str | None, *, as_json: bool) -> None:
    """Everything between the options and the printed result."""
    done = cache_factors(folder, rank, parse_targets(targets), progress=ModuleProgress)
    if as_json:
        print(json.dumps(done.to_json(), indent=1))
        return
    took = seconds(done.seconds) if done.seconds >= 10 else f"{done.seconds:.1f} s"
    print(f"{done.modules} modules at rank {rank}: {done.computed} computed, {done.cached} cached")
    print(f"{took}, peak memory {done.peak_memory_bytes / 2**20:,.0f} MiB")
    print(f"Cache: {done.cache}")
    if done.warnings:
        print(f"{len(done.warnings)} warnings (all with --json), the first: {done.warnings[0]}")
