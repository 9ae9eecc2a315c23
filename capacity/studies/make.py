"""Makes the runs of a study that are missing, and reads what it then holds. Prints nothing and imports no torch.

`compare` and `sweep` differ in how they come to their specs; from there on both are `make_study`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from capacity.errors import DataError, Interrupted, RunsFailedError, SpecError, by_interruption
from capacity.models.base_files import base_digests
from capacity.plan.together import base_first, jobs
from capacity.runs.fingerprint import Fingerprint, Trainer, current
from capacity.runs.mixed import refuse_mixed
from capacity.runs.study import Failure, Run, State, Study
from capacity.spec.run import RunSpec
from capacity.studies.device import check_libraries, device
from capacity.studies.executors.executor import Executor
from capacity.studies.executors.local import local_executor
from capacity.studies.finished import adopt_kept
from capacity.studies.live import followed
from capacity.studies.preflight import check_obstacles
from capacity.studies.siblings import Reused, adopt_siblings, merged
from capacity.studies.workers import Event

# Makes those of the given runs that are missing and returns when each is made or has failed; the text says what for.
Make = Callable[[Sequence[RunSpec], str], None]
# Called with the runs that will be made and what for. Its context gives what hears of every event of theirs.
Observer = Callable[[Sequence[RunSpec], str], AbstractContextManager[Callable[[Event], None]]]


@dataclass(frozen=True)
class Wanted:
    """The runs that a study reports, and what to know of their learning rates, a sentence each."""

    specs: tuple[RunSpec, ...]
    remarks: tuple[str, ...]


@contextmanager
def unobserved(specs: Sequence[RunSpec], what: str) -> Iterator[Callable[[Event], None]]:  # noqa: ARG001
    """An observer that says nothing."""
    yield lambda _: None


@dataclass(frozen=True)
class MadeStudy:
    """A study after all runs that were wanted have been tried.

    Attributes:
        study: its folder.
        specs: the runs that were wanted.
        runs: those that are complete, in the order of `specs`.
        failures: the diagnoses of the others.
        remarks: what to know before methods are compared, a sentence each.
        wall_seconds: how long it took.
        reused: the runs that were copied from studies beside this one.
    """

    study: Study
    specs: tuple[RunSpec, ...]
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]
    wall_seconds: float
    reused: tuple[Reused, ...] = ()

    @property
    def failed(self) -> int:
        """How many of the wanted runs gave no result."""
        return len(self.specs) - len(self.runs)

    def check(self) -> None:
        """Raises unless every wanted run is complete.

        Raises:
            RunsFailedError: says how many are not.
        """
        if self.failed:
            raise RunsFailedError(
                f"{self.failed} of {len(self.specs)} runs failed; the diagnosis of each: "
                f"capacity runs {self.study.folder}"
            )


CHECKPOINT_MINUTES = 5.0  # between two checkpoints of a run, unless another time is given


def environment(trainer: Trainer = "loop", on: str | None = None) -> Fingerprint:
    """The fingerprint of runs that `trainer` makes now, on a kind of device; on that of this machine if None."""
    return current(on or device(), "fp32", trainer)


def make_study(
    folder: Path,
    produce: Callable[[Study, Make], Wanted],
    *,
    executor: Executor | None = None,
    together: int | None = None,
    trainer: Trainer = "loop",
    observe: Observer = unobserved,
    allow_mixed: bool = False,
    reuse: bool = False,
    checkpoint_minutes: float | None = None,
) -> MadeStudy:
    """Makes what is missing of a study.

    Args:
        folder: the study; it continues where it stopped.
        produce: makes runs by what it is given and says which of them the study reports.
        executor, together: as of `make_missing`.
        trainer: what makes the steps of runs.
        observe: watches the runs.
        allow_mixed: reuse runs that another environment made.
        reuse: copy runs that a study beside this one has, instead of making them again.
        checkpoint_minutes: as of `make_missing`.

    Raises:
        CapacityError: as `make_missing`; libraries are absent, or another process works on the study.
    """
    check_libraries(trainer)
    began = time.monotonic()
    executor = executor or local_executor()
    study, fingerprint = Study(folder), environment(trainer, executor.device)
    reused: list[Reused] = []

    def make(specs: Sequence[RunSpec], what: str) -> None:
        if reuse:
            reused.extend(adopt_siblings(study, specs, fingerprint))
        make_missing(
            study, specs, fingerprint, what,
            executor=executor, together=together, observe=observe, allow_mixed=allow_mixed,
            checkpoint_minutes=checkpoint_minutes,
        )  # fmt: skip

    with study.locked():
        wanted = produce(study, make)
        found = states(study, wanted.specs, fingerprint, allow_mixed=allow_mixed)
    absent = {spec.short_id for spec, _, run in found if run is None}
    return MadeStudy(
        study,
        wanted.specs,
        tuple(run for _, _, run in found if run is not None),
        tuple(failure for failure in study.failures() if failure.run in absent),
        wanted.remarks,
        time.monotonic() - began,
        merged(reused),
    )


def make_missing(
    study: Study,
    specs: Sequence[RunSpec],
    fingerprint: Fingerprint,
    what: str,
    *,
    executor: Executor | None = None,
    together: int | None = None,
    observe: Observer = unobserved,
    allow_mixed: bool = False,
    checkpoint_minutes: float | None = None,
) -> None:
    """Makes those of `specs` that are missing, by the workers of an executor; the caller holds the study's lock.

    The untrained model comes first.

    Args:
        study: where to.
        specs: what is wanted.
        fingerprint: of the present environment.
        what: what the runs are for, in words.
        executor: what makes them; workers on this machine if None.
        together: the largest number of trained runs that share their passes; see `capacity.plan.together.jobs`.
        observe: watches the runs.
        allow_mixed: stale runs are not missing.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made. If None: five
            minutes, and none by TRL's trainers, which make no checkpoints.

    Raises:
        DataError: as `missing_runs`.
        SpecError: so many runs do not fit together, or TRL's trainers are to train several together. The same error
            says that checkpoints of TRL's trainers are wanted.
        CapacityError: something stands in the way of runs, as `capacity.studies.preflight` tells it, or a model cannot
            be asked the prompts of its runs.
        Interrupted: Ctrl-C; complete runs are kept.
    """
    executor = executor or local_executor()
    minutes = _minutes(checkpoint_minutes, fingerprint.trainer)
    missing = base_first(missing_runs(study, specs, fingerprint, allow_mixed=allow_mixed))
    if not missing:
        return
    check_obstacles(study.folder, missing, executor.room())
    dealt = _jobs(missing, together, fingerprint, executor)
    try:
        with observe(missing, what) as on_event, followed(study.folder, missing, what, fingerprint.device) as follow:

            def hear(event: Event) -> None:
                follow(event)
                on_event(event)

            executor.run(study, dealt, fingerprint, hear, minutes)
    except (Exception, KeyboardInterrupt) as error:
        if not by_interruption(error):
            raise
        done = sum(study.path_of(spec).is_dir() for spec in missing)
        raise Interrupted(
            f"interrupted: {done} of {len(missing)} missing runs were completed and are kept in {study.folder}; "
            "the same command continues"
        ) from None


def _minutes(asked: float | None, trainer: Trainer) -> float:
    """The time between two checkpoints of a run in training, in minutes; 0: there are none."""
    if asked is not None and not 0 <= asked < math.inf:
        raise SpecError(f"--checkpoint-minutes {asked:g}: give a number of minutes, or 0 for no checkpoints")
    if trainer == "trl":
        if asked:
            raise SpecError("--checkpoint-minutes is for --trainer loop: TRL's trainers start a killed run over")
        return 0.0
    return CHECKPOINT_MINUTES if asked is None else asked


def _jobs(
    specs: Sequence[RunSpec], together: int | None, fingerprint: Fingerprint, executor: Executor
) -> list[tuple[RunSpec, ...]]:
    """Deals runs to the jobs of workers."""
    if fingerprint.trainer == "trl":
        if together is not None and together > 1:
            raise SpecError("--together is for --trainer loop: TRL's trainers train one run at a time")
        together = 1
    return jobs(specs, together, executor.gpu_bytes, executor.workers)


def missing_runs(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint, *, allow_mixed: bool = False
) -> list[RunSpec]:
    """Adds `specs` to the study's plan and finds those that are still to be made; the caller holds the lock.

    Runs that the study had no room for are added to it first.

    Raises:
        DataError: as `states`, or there is still no room.
    """
    study.write_plan(specs)
    adopt_kept(study, specs, None if allow_mixed else fingerprint)
    return [spec for spec, _, run in states(study, specs, fingerprint, allow_mixed=allow_mixed) if run is None]


def states(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint, *, allow_mixed: bool = False
) -> list[tuple[RunSpec, State, Run | None]]:
    """Each run with its state, and itself unless it is missing.

    Raises:
        DataError: runs are stale or on different bases, and `allow_mixed` does not say to reuse them.
    """
    found = found_runs(study, specs, fingerprint)
    stale = [run for _, state, run in found if state == "stale" and run is not None]
    if stale and not allow_mixed:
        raise DataError(
            f"{study.folder}: {len(stale)} runs are stale, made {_elsewhere(stale[0], fingerprint)}: "
            "choose another --out, or reuse them with --allow-mixed"
        )
    refuse_mixed([run for _, _, run in found if run is not None], study.folder, allow_mixed=allow_mixed)
    return found


def found_runs(
    study: Study, specs: Sequence[RunSpec], fingerprint: Fingerprint
) -> list[tuple[RunSpec, State, Run | None]]:
    """Each run with its state here and now, and itself unless it is missing."""
    there = study.runs_folder.is_dir() and any(study.runs_folder.iterdir())
    bases = base_digests(spec.model for spec in specs) if there else {}
    return [(spec, *study.find(spec, fingerprint, bases)) for spec in specs]


def _elsewhere(run: Run, fingerprint: Fingerprint) -> str:
    """What is other than it was when a run was made, in words."""
    if run.fingerprint != fingerprint:
        return f"in another environment ({run.fingerprint.difference(fingerprint)})"
    return f"on another base (the files of {run.spec.model} have changed since)"
