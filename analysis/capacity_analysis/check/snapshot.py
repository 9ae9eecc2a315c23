"""From a study folder to the form of a baseline: its reported runs by cell, and every answer as a bit."""

from collections.abc import Sequence

from capacity.errors import DataError
from capacity.runs.cell import cell_of, cells
from capacity.runs.mixed import mixture
from capacity.runs.study import Run, Study
from capacity.runs.study_folder import PLAN
from capacity.spec.frozen import canonical_json
from capacity.spec.run import RunSpec
from capacity_analysis.check.baseline import (
    Baseline,
    StoredCell,
    StoredRun,
    baseline_of,
    own_adapter_seed,
    stored_spec,
)

# What the trials of a tuning and the result that they serve may differ in.
_TUNED = ("training", "grpo", "rft", "warm_start", "rollouts", "evaluation")


def snapshot(study: Study) -> Baseline:
    """What a study measured, in the form of a baseline. Trials of a tuning are no result and are left out.

    A trial is a trained run on validation whose model, task, method and update are also planned or made on another
    split.

    Raises:
        DataError: no runs, no plan, planned runs without a result, runs of different environments or bases, corrupt
            runs.
    """
    runs, planned = study.runs(), study.plan()
    if not runs:
        raise DataError(f"{study.folder}: no complete run: make the study first")
    if not study.has_plan:
        raise DataError(
            f"{study.folder}: it has no {PLAN}, so nobody can tell whether runs failed: the command that made the "
            "study writes it anew"
        )
    trials = _trials([*planned, *(run.spec for run in runs)])
    done = {run.spec.identity for run in runs}
    missing = [spec.label for spec in planned if spec.identity not in done | trials]
    known = {identity[:16] for identity in (*(spec.identity for spec in planned), *done)}
    missing += [failure.label for failure in study.failures() if failure.run not in known]
    if missing:
        # Runs that fail are the worst ones: a curve without them would look better than it is.
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{study.folder}: no result of {missing[0]}{more}, which was planned: `capacity runs` says why")
    runs = [run for run in runs if run.spec.identity not in trials]
    if difference := mixture(runs):
        raise DataError(f"{study.folder}: {difference}: start an empty study")
    stored = [_stored(members) for members in cells(runs, lambda run: run.cell).values()]
    return baseline_of(study.folder.resolve().name, runs[0].fingerprint, sorted(stored, key=_place))


def _trials(specs: Sequence[RunSpec]) -> set[str]:
    """The identities of those specs that are trials of a tuning."""
    of_validation = [spec for spec in specs if spec.training is not None and spec.evaluation.split == "validation"]
    reported = {cell_of(spec).apart_from(*_TUNED) for spec in specs if spec.evaluation.split != "validation"}
    return {spec.identity for spec in of_validation if cell_of(spec).apart_from(*_TUNED) in reported}


def _place(stored: StoredCell) -> tuple[str, str, int, str]:
    """Where a cell stands: models and methods in alphabetical order, sizes rising."""
    spec = stored.cell.spec
    return spec.model, spec.method, stored.trained_parameters, canonical_json(stored.spec)


def _stored(runs: Sequence[Run]) -> StoredCell:
    """A cell from its runs.

    Raises:
        DataError: they answered different items, or a run cannot be read.
    """
    first = runs[0]
    for run in runs:
        if (run.answers.items, run.result.items_digest) != (first.answers.items, first.result.items_digest):
            raise DataError(f"{run.folder}: answered other items than {first.folder}")
    return StoredCell(
        spec=stored_spec(first.spec),
        model_parameters=first.result.model_parameters,
        family=first.result.family,
        base=first.result.base_fingerprint,
        trained_parameters=first.result.trained_parameters,
        n_items=len(first.answers.items),
        items_digest=first.answers.items_digest,
        contents_digest=first.result.items_digest,
        runs=tuple(
            StoredRun(
                seed=run.spec.seed,
                adapter_seed=own_adapter_seed(run.spec),
                update_bytes=run.result.update_bytes,
                n_correct=int(run.answers.correct.sum()),
                answers=run.answers.packed(),
            )
            for run in runs
        ),
    )
