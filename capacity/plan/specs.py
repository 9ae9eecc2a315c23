"""Turns a question ("sft against grpo at budget 100") into the specs of its runs. It does not import torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from capacity.errors import SpecError, unknown
from capacity.plan.kinds.kind import Size
from capacity.plan.protocols import GRPO, PROTOCOLS, RFT, Protocol
from capacity.plan.rates import TunedRate, tuned_rate
from capacity.spec.adapters import NoAdapter
from capacity.spec.methods import METHODS, NAMED, TRAINED, Method
from capacity.spec.parts import Draws, Match, TaskSpec, TrainingSpec
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task


def parse_methods(text: str) -> tuple[Method, ...]:
    """Reads `sft,grpo`. The method `base` always runs and need not be named.

    Raises:
        SpecError: if a method is unknown or named twice, or none is named. The message offers the nearest names.
    """
    return named_methods([name for part in text.split(",") if (name := part.strip())])


def named_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods of a comparison: those to train, and `zero`. `base` always runs and need not be named.

    Raises:
        SpecError: as `parse_methods`.
    """
    methods: list[Method] = []
    for name in names:
        method = next((m for m in METHODS if m == name), None)
        if method is None:
            raise unknown("method", name, NAMED)
        if method in methods:
            raise SpecError(f"--methods {','.join(names)!r} names {method} twice")
        if method != "base":
            methods.append(method)
    if not any(METHODS[method].trains for method in methods):
        raise SpecError(f"--methods {','.join(names)!r} names no method to train: choose from {', '.join(TRAINED)}")
    return tuple(methods)


def rate_of(model: str, task: TaskSpec, method: Method, size: Size, rates: Mapping[Method, float]) -> float:
    """Returns the learning rate of a method: the given one, or else the shipped one for this size."""
    return rates[method] if method in rates else shipped_rate(model, task, method, size).learning_rate


def shipped_rate(model: str, task: TaskSpec, method: Method, size: Size) -> TunedRate:
    """The rate that is shipped for a method at this size.

    Raises:
        SpecError: an embedded model, for which none was tuned near this size.
    """
    return tuned_rate(model, task, method, size.tuned_as, size.trained_parameters)


def shipped_rates(
    model: str, task: TaskSpec, methods: Sequence[Method], size: Size, rates: Mapping[Method, float]
) -> dict[Method, TunedRate]:
    """The shipped rates that runs of these methods take where `rates` gives none, in the order of the methods' table.

    Raises:
        SpecError: as `shipped_rate`.
    """
    phases = {phase for m in methods for phase in METHODS[m].phases}
    return {m: shipped_rate(model, task, m, size) for m in METHODS if m in phases and m not in rates}


def matched(training: TrainingSpec, match: Match, tokens_per_step: int | None) -> TrainingSpec:
    """Returns the training part of a spec with another matching.

    Raises:
        SpecError: if matching "tokens" comes without `tokens_per_step`, or other matching with it.
    """
    if match == "tokens" and tokens_per_step is None:
        raise SpecError("--match tokens needs --tokens-per-step: completion tokens that a step trains on")
    if match != "tokens" and tokens_per_step is not None:
        raise SpecError(f"--tokens-per-step belongs to --match tokens, not to {match}")
    return training.model_copy(update={"match": match, "tokens_per_step": tokens_per_step})


def trained_spec(
    model: str,
    task: TaskSpec,
    method: Method,
    size: Size,
    seed: int,
    storage_dtype: str,
    *,
    rates: Mapping[Method, float] | None = None,
    validation: bool = False,
    match: Match = "prompts",
    tokens_per_step: int | None = None,
    protocol: Protocol | None = None,
) -> RunSpec:
    """Returns the spec of one trained run.

    Args:
        model: the alias of the model.
        task: the task with the demonstrations of the study. They are left out for methods that see none.
        method: the training method.
        size: the size of the update.
        seed: the seed of the run.
        storage_dtype: the dtype of the stored update.
        rates: learning rates by method; methods without one take the shipped rate. `sft+grpo` takes those of its
            halves.
        validation: True to evaluate on the validation split, False on the test split.
        match: what the runs of a pair have in common.
        tokens_per_step: the number of completion tokens that a step trains on, for matching "tokens".
        protocol: the protocol; the shipped one of the task if None.

    Raises:
        SpecError: if the method needs demonstrations and the task has none, or there is no rate.
    """
    protocol, problem, given = protocol or PROTOCOLS[task.name], open_task(task), rates or {}
    facts = METHODS[method]
    sees = facts.sees_demonstrations
    if sees and not problem.has_demonstrations:
        raise SpecError(
            f"task {task.label} has no demonstrations: {method} cannot run; choose from grpo, rft, rft-online"
        )
    *earlier, last = (rate_of(model, task, phase, size, given) for phase in facts.phases)
    training = protocol.training(problem, last)
    return RunSpec.model_validate(
        {
            "model": model,
            "task": task if sees else task.unseen(),
            "method": method,
            "adapter": size.adapter(seed),
            "storage_dtype": storage_dtype,
            "training": matched(training, match, tokens_per_step),
            "grpo": GRPO if "grpo" in facts.parts else None,
            "rft": RFT if "rft" in facts.parts else None,
            "warm_start": {"learning_rate": earlier[0]} if "warm_start" in facts.parts else None,
            "evaluation": protocol.evaluation(problem, validation=validation),
            "seed": seed,
        }
    )


def base_spec(
    model: str,
    task: TaskSpec,
    temperature: float | None = None,
    *,
    seed: int = 0,
    validation: bool = False,
    protocol: Protocol | None = None,
) -> RunSpec:
    """Returns the spec of a run of the untrained model. If `temperature` is None, it is that of the protocol.

    The seed decides the draws of its answers, if the protocol has draws of each seed.
    """
    protocol, problem = protocol or PROTOCOLS[task.name], open_task(task)
    return RunSpec(
        model=model,
        task=task.unseen(),
        method="base",
        adapter=NoAdapter(),
        storage_dtype="fp32",
        training=None,
        evaluation=protocol.evaluation(problem, validation=validation, temperature=temperature),
        seed=seed,
    )


def zero_specs(
    model: str,
    task: TaskSpec,
    size: Size,
    storage_dtype: str,
    *,
    seeds: Sequence[int],
    validation: bool = False,
    protocol: Protocol | None = None,
) -> list[RunSpec]:
    """Returns the specs of the adapter of zeros that stands beside trained runs.

    Zeros are the same for every seed. So one run is enough, unless each seed draws answers of its own.

    Args:
        model: the alias of the model.
        task: the task.
        size: the size of the trained updates, whose adapter is filled with zeros.
        storage_dtype: the dtype of the trained updates.
        seeds: the seeds of the trained runs.
        validation: True if the trained runs are evaluated on the validation split.
        protocol: the protocol; the shipped one of the task if None.
    """
    protocol = protocol or PROTOCOLS[task.name]
    evaluation = protocol.evaluation(open_task(task), validation=validation)
    return [
        RunSpec.model_validate(
            {
                "model": model,
                "task": task.unseen(),
                "method": "zero",
                "adapter": size.adapter(seed),
                "storage_dtype": storage_dtype,
                "training": None,
                "evaluation": evaluation,
                "seed": seed,
            }
        )
        for seed in (seeds if evaluation.draws == "seed" else seeds[:1])
    ]


def base_specs(
    model: str,
    task: TaskSpec,
    protocol: Protocol | None = None,
    *,
    seeds: Sequence[int] = (),
    validation: bool = False,
) -> list[RunSpec]:
    """Returns the specs of the untrained model at every temperature, on test and on validation.

    The best temperature is chosen on validation. Where answers are drawn by seed, each of `seeds` has a run under the
    protocol of the trained runs, so that it is paired with them. Everything else is evaluated with seed 0 only.

    Args:
        model: the alias of the model.
        task: the task.
        protocol: the protocol; the shipped one of the task if None.
        seeds: the seeds of the trained runs.
        validation: True if the trained runs are evaluated on the validation split.
    """
    protocol = protocol or PROTOCOLS[task.name]
    temperatures = dict.fromkeys([*protocol.temperatures, protocol.evaluation_temperature])
    found = []
    for split in (False, True):
        found += [base_spec(model, task, t, validation=split, protocol=protocol) for t in temperatures]
        if split == validation and base_spec(model, task, protocol=protocol).evaluation.draws == "seed":
            found += [base_spec(model, task, seed=s, validation=split, protocol=protocol) for s in seeds if s != 0]
    return found


def compare_specs(
    model: str,
    task: TaskSpec,
    methods: Sequence[Method],
    size: Size,
    seeds: int,
    storage_dtype: str,
    rates: Mapping[Method, float],
    match: Match = "prompts",
    tokens_per_step: int | None = None,
    draws: Draws = "seed",
) -> list[RunSpec]:
    """Returns the specs of one comparison: each method × seed, then the controls that train nothing.

    These are the adapter of zeros, if it is named, and the base at every temperature.

    The slowest methods come first, so that no worker is left with one of them at the end.
    """
    protocol = replace(PROTOCOLS[task.name], draws=draws)
    trained = [
        trained_spec(
            model,
            task,
            method,
            size,
            seed,
            storage_dtype,
            rates=rates,
            match=match,
            tokens_per_step=tokens_per_step,
            protocol=protocol,
        )
        for method in sorted(methods, key=lambda m: -METHODS[m].slowness)
        if METHODS[method].trains
        for seed in range(seeds)
    ]
    zeros = (
        zero_specs(model, task, size, storage_dtype, seeds=range(seeds), protocol=protocol) if "zero" in methods else []
    )
    return [*trained, *zeros, *base_specs(model, task, protocol, seeds=range(seeds))]
