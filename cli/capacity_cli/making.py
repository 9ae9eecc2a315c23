"""Making the runs of a study that are missing: what `compare` and `sweep` share."""

import os
from collections.abc import Sequence

from capacity.errors import DataError
from capacity.plan.sampling import SERVER
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Run, State, Study
from capacity.sampling.vllm.engine import installed_version
from capacity.spec.run import RunSpec
from capacity.studies.workers import run_all
from capacity_cli.interrupted import Interrupted
from capacity_cli.progress import RunProgress


def states(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint, *, allow_mixed: bool
) -> list[tuple[RunSpec, State, Run | None]]:
    """Each run with its state, and itself unless it is missing.

    Raises:
        DataError: runs are stale, and `allow_mixed` does not say to reuse them.
    """
    found = [(spec, *study.find(spec, fingerprint)) for spec in specs]
    stale = [run for _, state, run in found if state == "stale" and run is not None]
    if stale and not allow_mixed:
        raise DataError(
            f"{study.folder}: {len(stale)} runs are stale, made in another environment "
            f"({stale[0].fingerprint.difference(fingerprint)}): choose another --out, or reuse them with --allow-mixed"
        )
    return found


def make_missing(
    study: Study,
    specs: Sequence[RunSpec],
    fingerprint: Fingerprint,
    workers: int | None,
    what: str,
    *,
    allow_mixed: bool,
) -> int:
    """Makes those of `specs` that are missing; the caller holds the study's lock.

    Args:
        study: where to.
        specs: what is wanted.
        fingerprint: of the present environment.
        workers: processes; one a core, at most four, if None, and one on a GPU.
        what: named in the progress.
        allow_mixed: stale runs are not missing.

    Returns:
        How many failed.

    Raises:
        DataError: as `states`.
        EngineError: runs sample from a vLLM in their own process, and there is none.
        Interrupted: Ctrl-C; complete runs are kept.
    """
    study.write_plan(specs)
    found = states(study, specs, fingerprint, allow_mixed=allow_mixed)
    missing = [spec for spec, state, _ in found if state == "missing"]
    if not missing:
        return 0
    if any(spec.rollouts is not None for spec in missing) and SERVER not in os.environ:
        installed_version()
    count = workers or (min(4, os.cpu_count() or 1) if fingerprint.device == "cpu" else 1)
    try:
        with RunProgress(missing, what) as progress:
            return run_all(study, missing, fingerprint, count, progress.on_event)
    except KeyboardInterrupt:
        done = sum(study.path_of(spec).is_dir() for spec in missing)
        raise Interrupted(
            f"interrupted: {done} of {len(missing)} missing runs were completed and are kept in {study.folder}; "
            "the same command continues"
        ) from None
