"""Makes the runs of a study with an adaptive design, batch by batch: plan, make, look, plan. No torch here.

Every step follows from the results of the steps before it. So a study that was interrupted continues from its folder
alone: it goes through the same steps again, and finds their runs there.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from capacity.errors import DataError, RunsFailedError
from capacity.plan.adaptive_file import DEFAULT_GAIN, DEFAULT_HALF_WIDTH, AdaptiveFile
from capacity.plan.grid import GridPoint, arm_name, unique
from capacity.plan.hours import Hours, Spent, all_tried
from capacity.plan.rates import TunedRate, rate_remarks
from capacity.plan.sampling import with_rollouts
from capacity.plan.specs import base_spec, base_specs, shipped_rate
from capacity.runs import files
from capacity.runs.study import Run, Study
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec
from capacity.studies.make import Make, Wanted
from capacity_analysis.data.table import study_points
from capacity_analysis.design.measure import measure
from capacity_analysis.design.pilot import FIRST_SEEDS
from capacity_analysis.design.state import Ask, Batch, Goal, Measured, Setting, Stop
from capacity_analysis.design.steps import confidence, next_step
from capacity_analysis.thresholds.question import Question

LOG = "design.json"  # why each batch of an adaptive study was made, and why it ended


@dataclass
class AdaptiveStudy:
    """A study that chooses its runs.

    Attributes:
        file: what is asked.
        workers: how many runs a batch has, at least one of each method.
        clock: a monotonic clock, in seconds.
        ended: why the study ended; empty before.
        steps: the batches so far, as plain JSON types.
    """

    file: AdaptiveFile
    workers: int
    clock: Callable[[], float] = time.monotonic
    ended: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    _read: dict[str, Run] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.points = self.file.points()
        rates = self.file.rates
        self.tried: tuple[float, ...] = () if rates == "shipped" else rates
        self.protocol = self.points[0].grid.protocol_of(self.points[0].task)

    def produce(self, study: Study, make: Make) -> Wanted:
        """Makes batches until the goal is reached or a limit is met, as `capacity.studies.make.make_study` asks.

        Raises:
            RunsFailedError: the untrained model has no result on validation.
        """
        files.write_atomically(study.folder / "study.json", self.file.model_dump_json(indent=1) + "\n")
        self.hours = Hours(self.file.hours, _spent(study.folder / LOG), lambda _: self._write(study, None), self.clock)
        specs = self._base(FIRST_SEEDS)
        with self.hours.kept():
            make(specs, "the untrained model")
        base = self._accuracy_of_base(study)
        results: dict[Ask, float | None] = {}
        looks: list[Measured] = []
        while isinstance(step := next_step(self.setting, results, base, looks), Batch):
            made = {ask: self._spec(ask) for ask in step.runs}
            new = not all_tried(study, list(made.values()))
            if self.file.hours is not None and new and not self.hours.allow_batch:
                step = Stop(f"The next batch would end after {self.file.hours:g} hours.", reached=False)
                break
            specs = unique([*specs, *made.values(), *self._base(_seeds(results, step))])
            with self.hours.batch() if new else nullcontext():
                make(specs, f"batch {len(self.steps) + 1}")
            results |= {ask: self._accuracy(study, spec) for ask, spec in made.items()}
            self._log(study, step, made, results)
            if not all(ask.validation for ask in made):
                looks.append(self._measured(study, specs))
        self.ended = step.why
        self._write(study, {"reached": step.reached, "why": step.why})
        return Wanted(tuple(specs), self._remarks())

    @property
    def setting(self) -> Setting:
        """What does not change while the study is made."""
        file = self.file
        by_width = file.half_width or (None if file.decide is not None else DEFAULT_HALF_WIDTH)
        return Setting(
            log_sizes=np.log10([point.size.trained_parameters for point in self.points]),
            methods=file.methods,
            rates=max(len(self.tried), 1),
            target=file.target,
            gain=file.gain or DEFAULT_GAIN,
            ceiling=file.ceiling,
            items=self._validation().evaluation.items,
            goal=Goal(by_width, file.decide, file.most_runs),
            batch=max(self.workers, len(file.methods)),
        )

    def _spec(self, ask: Ask) -> RunSpec:
        point, method = self.points[ask.size], _method(ask, self.file)
        return point.spec(method, ask.seed, {method: self._rate(point, method, ask)}, validation=ask.validation)

    def _rate(self, point: GridPoint, method: Method, ask: Ask) -> float:
        return self.tried[ask.rate] if self.tried else self._shipped(point, method).learning_rate

    def _shipped(self, point: GridPoint, method: Method) -> TunedRate:
        return shipped_rate(point.model, point.task, method, point.size)

    def _validation(self) -> RunSpec:
        """The untrained model on validation, under the protocol of the trained runs."""
        spec = base_spec(self.file.model, self.points[0].task, validation=True, protocol=self.protocol)
        return with_rollouts(spec, self.file.rollouts)

    def _base(self, seeds: int) -> list[RunSpec]:
        """The untrained model, under the draws of the first seeds of the results."""
        found = base_specs(self.file.model, self.points[0].task, self.protocol, seeds=range(seeds))
        return [with_rollouts(spec, self.file.rollouts) for spec in found]

    def _accuracy_of_base(self, study: Study) -> float:
        found = self._accuracy(study, self._validation())
        if found is None:
            raise RunsFailedError(
                f"the untrained model has no result on validation; the diagnosis: capacity runs {study.folder}"
            )
        return found

    def _measured(self, study: Study, specs: list[RunSpec]) -> Measured:
        """The intervals by all results so far."""
        runs = [run for run in (self._run(study, spec) for spec in specs) if run is not None]
        question = Question(self.file.target, self.file.gain or DEFAULT_GAIN)
        judged_at = None if self.file.decide is None else confidence(self.setting.goal, len(self.file.methods))
        return measure(study_points(study.folder, runs), self.file.methods, question, confidence=judged_at)

    def _run(self, study: Study, spec: RunSpec) -> Run | None:
        """A complete run, which is read once; None if it failed."""
        folder = None if spec.identity in self._read else study.held(spec)
        if folder is not None:
            self._read[spec.identity] = study.read(folder)
        return self._read.get(spec.identity)

    def _accuracy(self, study: Study, spec: RunSpec) -> float | None:
        run = self._run(study, spec)
        return None if run is None else run.result.accuracy

    def _log(self, study: Study, batch: Batch, made: dict[Ask, RunSpec], results: dict[Ask, float | None]) -> None:
        runs = [
            {
                "run": spec.short_id,
                "method": ask.method,
                "trained_parameters": self.points[ask.size].size.trained_parameters,
                "learning_rate": None if spec.training is None else spec.training.learning_rate,
                "seed": ask.seed,
                "split": spec.evaluation.split,
                "complete": results[ask] is not None,
            }
            for ask, spec in made.items()
        ]
        self.steps.append({"why": batch.why, "runs": runs})
        self._write(study, None)

    def _write(self, study: Study, end: dict[str, Any] | None) -> None:
        spent = self.hours.spent.model_dump(mode="json")
        text = files.json_text({"batches": self.steps, "end": end, "spent": spent})
        files.write_atomically(study.folder / LOG, text)

    def _remarks(self) -> tuple[str, ...]:
        if self.tried:
            return (self.ended,)
        rates = {arm_name(p, m): self._shipped(p, m) for p in self.points for m in self.file.methods}
        return (self.ended, *rate_remarks(rates))


def _spent(log: Path) -> Spent:
    """The time that the study has taken, by its log.

    Raises:
        DataError: the log is unreadable.
    """
    if not log.exists():
        return Spent()
    found = files.read_json(log)
    try:
        return Spent.model_validate(found.get("spent", {}))
    except (AttributeError, ValidationError):
        raise DataError(f"{log}: its record of the time spent is unreadable: remove the file") from None


def _seeds(results: Mapping[Ask, float | None], batch: Batch) -> int:
    """How many seeds the results have. Trials have seeds of their own, and need no base for each."""
    return max([FIRST_SEEDS, *(ask.seed + 1 for ask in (*results, *batch.runs) if not ask.validation)])


def _method(ask: Ask, file: AdaptiveFile) -> Method:
    return next(method for method in file.methods if method == ask.method)
