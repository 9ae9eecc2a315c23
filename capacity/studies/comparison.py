"""The plan of a comparison: matched runs of several methods at one size, a sweep of one grid point. No torch here."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capacity.plan.defaults import default_size, default_task, default_weights
from capacity.plan.kinds.kind import Size
from capacity.plan.looks import Looks
from capacity.plan.models import check_trainable, model_shape, resolve
from capacity.plan.rates import rate_remarks
from capacity.plan.sampling import Choice, rollout_spec, with_rollouts
from capacity.plan.sizes import SizeChoice
from capacity.plan.specs import compare_specs, shipped_rates
from capacity.runs.fingerprint import Trainer
from capacity.runs.study import Study
from capacity.spec.methods import Method
from capacity.spec.parts import Draws, Match
from capacity.spec.run import RunSpec
from capacity.studies.device import device
from capacity.studies.make import Make, Wanted, environment
from capacity.tasks.catalog import parse_task


@dataclass(frozen=True)
class ComparisonPlan:
    """What a comparison will run.

    Attributes:
        model: its name, with the dtype of its weights.
        size: of every update.
        specs: the runs, those of the slowest methods first, the base last.
        remarks: what to know of rates and weights, a sentence each.
        trainer: what makes the steps.
        looks: when to look at the results before more seeds are made; None if all runs are made at once.
    """

    model: str
    size: Size
    specs: tuple[RunSpec, ...]
    remarks: tuple[str, ...]
    trainer: Trainer = "loop"
    looks: Looks | None = None

    @property
    def folder(self) -> Path:
        """A folder of its own for each question and environment, so the same question continues where it stopped."""
        identities = "".join(spec.identity for spec in self.specs) + environment(self.trainer).digest
        looks = "" if self.looks is None else self.looks.model_dump_json()
        digest = hashlib.sha256((identities + looks).encode()).hexdigest()[:8]
        plain = re.sub(r"[^\w.-]+", "-", self.model)
        return Path("capacity-studies") / f"compare-{plain}-{self.size.kind}-{self.size.trained_parameters}-{digest}"

    def of_seeds(self, seeds: int) -> "ComparisonPlan":
        """The part of this plan that has `seeds` runs of each method, seeds 0 … seeds − 1."""
        return replace(self, specs=tuple(spec for spec in self.specs if spec.seed < seeds))

    def produce(self, study: Study, make: Make) -> Wanted:  # noqa: ARG002
        """Makes all runs, as `capacity.studies.make.make_study` asks."""
        make(self.specs, "steps of all runs")
        return Wanted(self.specs, self.remarks)


def plan_comparison(
    model: str,
    task: str | None,
    choice: SizeChoice,
    methods: Sequence[Method],
    seeds: int,
    *,
    rates: Mapping[Method, float],
    storage_dtype: str,
    match: Match,
    tokens_per_step: int | None,
    rollouts: Choice,
    trainer: Trainer = "loop",
    draws: Draws = "seed",
    looks: Looks | None = None,
) -> ComparisonPlan:
    """Plans matched runs.

    Args:
        model: its name; weights of large models are held in bf16 unless the name says another dtype.
        task: with its options; the model's default one if None.
        choice: how large the updates are to be.
        methods: what to train.
        seeds: how many runs of each method, with seeds 0 … seeds − 1; without a meaning if there are `looks`.
        rates: learning rates by method, the shipped ones for the others.
        storage_dtype: of the stored updates.
        match: what the methods have in common.
        tokens_per_step: for matching "tokens".
        rollouts: what samples.
        trainer: what makes the steps.
        draws: what the answers of an evaluation are drawn from; see `capacity.spec.parts.EvaluationSpec`.
        looks: when to look before more seeds are made. The plan then has the seeds of the last look.

    Raises:
        SpecError: something that cannot be planned; the message says what to change.
    """
    check_trainable(resolve(model))
    name = default_weights(model)
    task_spec = parse_task(task or default_task(name))
    size, most = default_size(name, choice, storage_dtype), seeds if looks is None else looks.most
    specs = compare_specs(name, task_spec, methods, size, most, storage_dtype, rates, match, tokens_per_step, draws)
    engine = rollout_spec(rollouts, name, model_shape(name)[1], device(), size.template)
    remarks = rate_remarks(shipped_rates(name, task_spec, methods, size, rates))
    if name != resolve(model):
        remarks += (f"Weights in bf16, as a large model's are unless its name says another: {model}?dtype=fp32.",)
    return ComparisonPlan(name, size, tuple(with_rollouts(spec, engine) for spec in specs), remarks, trainer, looks)
