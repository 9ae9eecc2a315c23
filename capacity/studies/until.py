"""A comparison adds seeds, the same for every method, until its main contrast is decided. No torch here.

What it does next depends on the runs that are there and on the looks that the study was begun with. So a comparison
that was interrupted continues as if it had not been.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from capacity.plan.hours import Hours, all_tried
from capacity.plan.looks import Looks, keep_looks, keep_spent
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.comparison import ComparisonPlan
from capacity.studies.make import Make, Wanted
from capacity_analysis.compare.looks import Look, look_at


@dataclass
class SeedsUntilDecided:
    """Makes the runs of one look after another.

    Attributes:
        plan: with the seeds of the last look.
        looks: those of the plan: when to look, and what decides.
        hours: no batch starts that would end later than this, at the pace of the last one; None for no limit. The time
            of all calls counts.
        clock: a monotonic clock, in seconds.
        found: the looks so far.
    """

    plan: ComparisonPlan
    looks: Looks
    hours: float | None = None
    clock: Callable[[], float] = time.monotonic
    found: list[Look] = field(default_factory=list)

    def produce(self, study: Study, make: Make) -> Wanted:
        """Makes runs until the contrast is decided or no time is left, as `capacity.studies.make.make_study` asks.

        Raises:
            DataError: the study was begun with other looks, or its runs answered different items.
        """
        before = keep_looks(study.folder, self.looks)
        hours = Hours(self.hours, before, partial(keep_spent, study.folder, self.looks), self.clock)
        specs: tuple[RunSpec, ...] = ()
        for seeds in self.looks.seeds:
            batch = self.plan.of_seeds(seeds).specs
            new = not all_tried(study, batch)
            if new and self.found and not hours.allow_batch:
                break
            specs = batch
            with hours.batch() if new else nullcontext():
                make(specs, f"steps of {seeds} seeds of each method")
            runs = [study.read(folder) for folder in map(study.held, specs) if folder is not None]
            if not any(run.spec.method == "base" for run in runs):
                break
            self.found.append(look_at(study.folder, runs, specs, self.looks, seeds))
            if self.found[-1].outcome != "open" or self.found[-1].estimate is None:
                break
        return Wanted(specs, self.plan.remarks)
