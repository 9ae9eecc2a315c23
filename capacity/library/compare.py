"""Matched runs of several methods at one size, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.library.answers.comparison import comparison_answer
from capacity.library.report import Page, page_of
from capacity.library.shown import Shown
from capacity.library.study import Study
from capacity.plan.executors import Executed, ExecutorChoice
from capacity.plan.looks import planned_looks
from capacity.plan.rates import named_rates
from capacity.plan.sampling import Choice
from capacity.plan.sizes import SizeChoice, as_choice
from capacity.plan.specs import named_methods
from capacity.runs.fingerprint import Trainer, parse_trainer
from capacity.spec.parts import Draws, Match
from capacity.studies.comparison import ComparisonPlan, plan_comparison
from capacity.studies.device import check_libraries
from capacity.studies.executors.executor import opened
from capacity.studies.make import MadeStudy, Observer, make_study, unobserved
from capacity.studies.until import SeedsUntilDecided
from capacity_analysis.compare.comparison import Comparison
from capacity_analysis.compare.costs import Costs, costs_of
from capacity_analysis.compare.looks import Look, repeated
from capacity_analysis.compare.result import compare_runs, comparison_json
from capacity_analysis.compare.verdicts import verdict
from capacity_reports.blocks import Block, Text
from capacity_reports.sections.comparison import comparison_blocks, detail_blocks

DEFAULT_SEEDS = 5


@dataclass(frozen=True, repr=False)
class Compared(Shown):
    """Methods side by side at one size.

    Attributes:
        made: the study with its complete and failed runs.
        comparison: accuracies, gains and paired differences with their intervals.
        costs: what a run of each cell used, by the identity of the cell.
        page: the report of the study, if one was wanted.
        looks: of a comparison that added seeds until it was decided, what each look said.
    """

    made: MadeStudy
    comparison: Comparison
    costs: Mapping[str, Costs]
    page: Page
    looks: tuple[Look, ...] = ()

    @property
    def study(self) -> Study:
        """The study folder."""
        return Study(self.made.study.folder)

    @property
    def verdict(self) -> str:
        """The one sentence that the runs allow."""
        return verdict(self.comparison).sentence

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **comparison_json(self.comparison, self.costs),
            "remarks": list(self.made.remarks),
            "study": str(self.made.study.folder),
            "wall_seconds": round(self.made.wall_seconds, 1),
            "reused": [one.to_json() for one in self.made.reused],
            "failed": self.made.failed,
            **({"looks": [look.to_json() for look in self.looks]} if self.looks else {}),
            **self.page.to_json(),
        }

    @property
    def line(self) -> str:
        """The verdict."""
        return self.verdict

    @property
    def answer(self) -> Sequence[Block]:
        """The claims of the verdict, and the methods with their accuracies and gains."""
        return comparison_answer(self.comparison)

    @property
    def blocks(self) -> Sequence[Block]:
        """Tables of accuracies, differences and costs, what to know of the rates, and the verdict."""
        tables = [*comparison_blocks([self.comparison]), *detail_blocks(self.comparison, self.costs)]
        remarks = [Text(self.made.remarks, bullets=True)] if self.made.remarks else []
        return [*tables, *remarks, Text((self.verdict,), strong=True)]


def compare(
    model: str = "abacus",
    size: SizeChoice | int | str | None = None,
    *,
    task: str | None = None,
    methods: Sequence[str] = ("sft", "rft", "grpo"),
    seeds: int | None = None,
    until: str | None = None,
    within: float | None = None,
    most_seeds: int | None = None,
    margin: float | None = None,
    learning_rates: float | Mapping[str, float] | None = None,
    storage_dtype: str = "bf16",
    match: Match = "prompts",
    tokens_per_step: int | None = None,
    rollouts: Choice = "auto",
    trainer: Trainer = "loop",
    draws: Draws = "seed",
    workers: int | None = None,
    together: int | None = None,
    out: str | Path | None = None,
    allow_mixed: bool = False,
    reuse: bool | None = None,
    page: bool = False,
    observe: Observer = unobserved,
    checkpoint_minutes: float | None = None,
    executor: str | None = None,
    devices: Sequence[int] | None = None,
    ray: str | None = None,
) -> Compared:
    """Trains matched runs of one size and compares them on the test items. Complete runs are never made again.

    Runs are made in processes that import the calling script again: call it under `if __name__ == "__main__":` there.

    Args:
        model: alias, hub id or folder.
        size: a budget (13, "26B"), or a choice part by part; at most 100 parameters if None. If it names no projection,
            `capacity.plan.defaults.default_size` does.
        task: with its options; the model's default one if None.
        methods: what to train; the untrained base always runs.
        seeds: runs of each method, with seeds 0 … seeds − 1; 5 if None. With `until`: those of the first look, 3 if
            None.
        until: "decided" adds a seed to every method until the sign of grpo − sft is known, or the two are equal within
            `margin`.
        within: hours of all calls together, after which no more seeds are added.
        most_seeds: the largest number of seeds; 10 if None.
        margin: an accuracy, such as 0.02: methods whose difference is smaller count as equal.
        learning_rates: one for all methods, or one for each; the shipped ones for the others.
        storage_dtype: of the stored updates.
        match: what the methods have in common: "prompts", "sequences" or "tokens".
        tokens_per_step: completion tokens that a step trains on, for matching "tokens".
        rollouts: what samples: "transformers", "vllm", or "auto".
        trainer: what makes the steps: "loop", or "trl" for the trainers of TRL, which give the same update.
        draws: "seed": runs of each seed draw their answers anew. "common": all runs answer with the same draws.
        workers: processes; one a core, at most four, if None.
        together: the largest number of runs that share their passes. If None: one on a CPU, and as many as fit on a
            GPU, at most 16.
        out: study folder; one of its own for each question if None.
        allow_mixed: reuse runs of the study that another environment made.
        reuse: copy runs of this environment that a study beside this one has. If None: unless `out` is given.
        page: write the report of the study.
        observe: watches the runs.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made; 5 if None.
        executor: "local" for workers on this machine, "ray" for a Ray cluster; "local" if None.
        devices: the GPUs that local workers use, by number; all if None.
        ray: the address of a running Ray cluster. It implies the executor "ray".

    Returns:
        The comparison of the runs that are complete; `made.check()` raises unless all are.

    Raises:
        SpecError: something that cannot be planned.
        RunsFailedError: the untrained base has no result.
        CapacityError: the libraries of training are absent, or the study is in use or of another environment.
    """
    chosen = named_methods(methods)
    looks = planned_looks(until, chosen, seeds, most_seeds, margin, within)
    plan = plan_comparison(
        model, task, as_choice(size), chosen, DEFAULT_SEEDS if seeds is None else seeds,
        rates=named_rates(learning_rates, chosen), storage_dtype=storage_dtype, match=match,
        tokens_per_step=tokens_per_step, rollouts=rollouts, trainer=parse_trainer(trainer), draws=draws,
        looks=looks,
    )  # fmt: skip
    folder = plan.folder if out is None else Path(out)
    choice = Executed().executor_choice(executor, None if devices is None else tuple(devices), ray)
    return compare_planned(
        plan, folder, workers=workers, together=together, allow_mixed=allow_mixed,
        reuse=out is None if reuse is None else reuse, within=within, page=page, observe=observe,
        checkpoint_minutes=checkpoint_minutes, executor=choice,
    )  # fmt: skip


def compare_planned(
    plan: ComparisonPlan,
    folder: Path,
    *,
    workers: int | None = None,
    together: int | None = None,
    allow_mixed: bool = False,
    reuse: bool = False,
    within: float | None = None,
    page: bool = False,
    observe: Observer = unobserved,
    checkpoint_minutes: float | None = None,
    executor: ExecutorChoice | None = None,
) -> Compared:
    """Makes the runs of a plan in a study folder and compares them.

    Args:
        plan: what to run.
        folder: of the study.
        workers, together, allow_mixed, reuse, within, page, observe, checkpoint_minutes: as of `compare`.
        executor: what makes the runs; workers on this machine if None.

    Raises:
        CapacityError: as `compare`.
    """
    adding = None if plan.looks is None else SeedsUntilDecided(plan, plan.looks, within)
    check_libraries(plan.trainer)
    with opened(executor, workers) as there:
        made = make_study(
            folder, plan.produce if adding is None else adding.produce, executor=there, together=together,
            trainer=plan.trainer, observe=observe, allow_mixed=allow_mixed, reuse=reuse,
            checkpoint_minutes=checkpoint_minutes,
        )  # fmt: skip
    if not any(run.spec.method == "base" for run in made.runs):
        made.check()
    comparison, costs = compare_runs(folder, made.runs, made.specs), costs_of(made.runs)
    found: tuple[Look, ...] = ()
    if adding is not None:
        found = tuple(adding.found)
        comparison = repeated(comparison, adding.looks, found[-1].seeds)
    return Compared(made, comparison, costs, page_of(folder, allow_mixed=allow_mixed) if page else Page(), found)
