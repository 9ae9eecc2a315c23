"""From a study folder to the form of a baseline: its reported runs by cell, and every answer as a bit."""

from collections.abc import Collection, Sequence
from typing import Any

from capacity.errors import DataError
from capacity.runs.study import Run, Study
from capacity.spec.frozen import canonical_json
from capacity.spec.run import RunSpec
from capacity_analysis.check.baseline import OF_THE_RUN, Baseline, Cell, StoredRun, is_seed, seedless


def snapshot(study: Study) -> Baseline:
    """What a study measured, in the form of a baseline. Trials of a tuning are no result and are left out.

    A trial is a trained run on validation whose arm is also planned or made on another split.

    Raises:
        DataError: no runs, planned runs without a result, runs of different environments, corrupt runs.
    """
    runs, planned = study.runs(), study.plan()
    if not runs:
        raise DataError(f"{study.folder}: no complete run: make the study first")
    reported = {_arm(spec) for spec in (*planned, *(run.spec for run in runs)) if spec.evaluation.split != "validation"}
    done = {run.spec.identity for run in runs}
    missing = [s.label for s in planned if s.identity not in done and not _is_trial(s, reported)]
    if missing:
        # Runs that fail are the worst ones: a curve without them would look better than it is.
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{study.folder}: no result of {missing[0]}{more}, which was planned: `capacity runs` says why")
    runs = [run for run in runs if not _is_trial(run.spec, reported)]
    for run in runs[1:]:
        if run.fingerprint != runs[0].fingerprint:
            raise DataError(
                f"{study.folder}: runs of different environments ({runs[0].fingerprint.difference(run.fingerprint)}): "
                "start an empty study"
            )
    return Baseline(study=study.folder.resolve().name, fingerprint=runs[0].fingerprint, cells=_cells(runs))


def _arm(spec: RunSpec) -> str:
    """What a rate is tuned for: model, task, method and size."""
    raw = seedless(spec.model_dump(mode="json"))
    return canonical_json([raw[name] for name in ("model", "task", "method", "adapter", "storage_dtype")])


def _is_trial(spec: RunSpec, reported: Collection[str]) -> bool:
    return spec.training is not None and spec.evaluation.split == "validation" and _arm(spec) in reported


def _cells(runs: Sequence[Run]) -> tuple[Cell, ...]:
    """The runs by cell: methods in alphabetical order, sizes rising, seeds rising."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(canonical_json(seedless(run.spec.model_dump(mode="json"))), []).append(run)
    cells = [cell for group in alike.values() for cell in _cells_of(group)]
    return tuple(sorted(cells, key=lambda c: (c.spec["model"], c.spec["method"], c.trained_parameters, c.key)))


def _cells_of(runs: Sequence[Run]) -> list[Cell]:
    """The cells of runs that differ in seeds only: one where the adapter's random choices follow the seed of the run,
    and one for each fixed choice. A single run that follows may be one of a fixed choice that its seed happens to be.
    """
    following = [run for run in runs if _follows(run)]
    fixed: dict[str, list[Run]] = {}
    for run in runs:
        if not _follows(run):
            fixed.setdefault(run.spec.adapter.model_dump_json(), []).append(run)
    if len(following) == 1 and following[0].spec.adapter.model_dump_json() in fixed:
        fixed[following[0].spec.adapter.model_dump_json()] += following
        following = []
    groups = [(following, True)] if following else []
    groups += [(group, False) for group in fixed.values()]
    return [_cell(sorted(group, key=lambda run: run.spec.seed), follow=follow) for group, follow in groups]


def _follows(run: Run) -> bool:
    """Whether all random choices of the adapter have the seed of the run."""
    return all(value == run.spec.seed for name, value in run.spec.adapter.model_dump().items() if is_seed(name))


def _template(run: Run, *, follow: bool) -> dict[str, Any]:
    """The spec of a run without the seed; random choices of the adapter that follow the seed say so."""
    raw = run.spec.model_dump(mode="json", exclude={"seed"})
    if follow:
        raw["adapter"] = {name: OF_THE_RUN if is_seed(name) else value for name, value in raw["adapter"].items()}
    return raw


def _cell(runs: Sequence[Run], *, follow: bool) -> Cell:
    stored, names, contents = [], None, None
    first = runs[0]
    for run in runs:
        items, digest = run.answers.items, run.result.items_digest
        if names not in (None, items) or contents not in (None, digest):
            raise DataError(f"{run.folder}: answered other items than {first.folder}")
        names, contents = items, digest
        stored.append(
            StoredRun(
                seed=run.spec.seed,
                update_bytes=run.result.update_bytes,
                n_correct=int(run.answers.correct.sum()),
                answers=run.answers.packed(),
            )
        )
    assert names is not None
    assert contents is not None
    return Cell(
        spec=_template(first, follow=follow),
        model_parameters=first.result.model_parameters,
        family=first.result.family,
        trained_parameters=first.result.trained_parameters,
        n_items=len(names),
        items_digest=first.answers.items_digest,
        contents_digest=contents,
        runs=tuple(stored),
    )
