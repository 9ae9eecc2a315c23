"""From a question ("sft against grpo at budget 100") to the specs of its runs. No torch."""

from collections.abc import Sequence

from capacity.adapters.budget import Budget
from capacity.adapters.sharing import Sharing
from capacity.config import METHODS, Method, NoAdapter, RunSpec, TaskSpec
from capacity.errors import SpecError, unknown
from capacity.tasks.catalog import get_task
from capacity.training.protocols import GRPO, PROTOCOLS
from capacity.training.rates import tuned_rate
from capacity.training.sizes import Allocation, Scaling, Size, SizeChoice, size_of


def size_from_budget(
    model: str,
    budget: Budget,
    storage_dtype: str,
    sharing: Sharing = "tiled",
    rank: int | None = None,
    *,
    adapter: str | None = None,
    vector_length: int | None = None,
    targets: tuple[str, ...] | None = None,
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
) -> Size:
    """The largest update within `budget`, its payload stored in `storage_dtype`; see `SizeChoice` and `size_of`."""
    choice = SizeChoice(
        budget=budget,
        adapter=adapter,
        rank=rank,
        vector_length=vector_length,
        targets=targets,
        sharing=sharing,
        scaling=scaling,
        allocation=allocation,
    )
    return size_of(model, choice, storage_dtype)


def size_from_choice(
    model: str,
    adapter: str,
    *,
    rank: int | None = None,
    u: int | None = None,
    groups: int | None = None,
    n_tie: int | None = None,
    vectors: int | None = None,
    vector_length: int | None = None,
    length: int | None = None,
    targets: tuple[str, ...] | None = None,
    sharing: Sharing = "tiled",
    scaling: Scaling = "paper",
    allocation: Allocation = "even",
) -> Size:
    """The update that was chosen part by part; see `SizeChoice` and `size_of`."""
    choice = SizeChoice(
        adapter=adapter,
        rank=rank,
        u=u,
        groups=groups,
        n_tie=n_tie,
        vectors=vectors,
        vector_length=vector_length,
        length=length,
        targets=targets,
        sharing=sharing,
        scaling=scaling,
        allocation=allocation,
    )
    return size_of(model, choice, "fp32")


def parse_methods(text: str) -> tuple[Method, ...]:
    """Reads `sft,grpo`; `base` always runs and need not be named.

    Raises:
        SpecError: unknown (the nearest is offered), named twice, or none.
    """
    methods: list[Method] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        method = next((m for m in METHODS if m == part), None)
        if method is None:
            raise unknown("method", part, METHODS)
        if method in methods:
            raise SpecError(f"--methods {text!r} names {method} twice")
        if method != "base":
            methods.append(method)
    if not methods:
        raise SpecError(f"--methods {text!r} names no method to train: choose from sft, grpo")
    return tuple(methods)


def trained_spec(
    model: str,
    task: TaskSpec,
    method: Method,
    size: Size,
    seed: int,
    storage_dtype: str,
    *,
    rate: float | None = None,
    validation: bool = False,
) -> RunSpec:
    """The spec of one trained run; the shipped rate if `rate` is None."""
    protocol, problem = PROTOCOLS[task.name], get_task(task.name)
    if rate is None:
        rate = tuned_rate(model, task, method, size.tuned_as, size.solution.trained_parameters).learning_rate
    return RunSpec.model_validate(
        {
            "model": model,
            "task": task,
            "method": method,
            "adapter": size.adapter(seed),
            "storage_dtype": storage_dtype,
            "training": protocol.training(problem, rate),
            "grpo": GRPO if method == "grpo" else None,
            "evaluation": protocol.evaluation(problem, validation=validation),
            "seed": seed,
        }
    )


def base_spec(model: str, task: TaskSpec, temperature: float | None, *, validation: bool = False) -> RunSpec:
    """The spec of an untrained run, at the protocol's temperature if None."""
    protocol, problem = PROTOCOLS[task.name], get_task(task.name)
    return RunSpec(
        model=model,
        task=task,
        method="base",
        adapter=NoAdapter(),
        storage_dtype="fp32",
        training=None,
        grpo=None,
        evaluation=protocol.evaluation(problem, validation=validation, temperature=temperature),
        seed=0,
    )


def compare_specs(
    model: str,
    task: TaskSpec,
    methods: Sequence[Method],
    size: Size,
    seeds: int,
    storage_dtype: str,
    rates: dict[Method, float],
) -> list[RunSpec]:
    """All runs of one comparison: the base at every temperature, then each method × seed, slowest first."""
    trained = [
        trained_spec(model, task, method, size, seed, storage_dtype, rate=rates.get(method))
        for method in sorted(methods, key=("grpo", "sft").index)
        for seed in range(seeds)
    ]
    return [*trained, *(base_spec(model, task, t) for t in PROTOCOLS[task.name].temperatures)]
