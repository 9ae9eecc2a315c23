"""From a question ("sft against grpo at budget 100") to the specs of its runs. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.adapters.budget import Budget, ModuleShape, Solution, solve
from capacity.adapters.sharing import Sharing, assign_groups, check_u, groups_from_n_tie
from capacity.config import METHODS, Adapter, FullUpdate, Method, NoAdapter, RunSpec, TaskSpec, TinyLora
from capacity.errors import SpecError, unknown
from capacity.models.aliases import ALIASES
from capacity.tasks.catalog import get_task
from capacity.training.protocols import GRPO, PROTOCOLS
from capacity.training.rates import tuned_rate


@dataclass(frozen=True)
class Size:
    """The size of an update on a model: what the options --budget, --adapter, --u, … come to."""

    solution: Solution
    sharing: Sharing
    group_of_module: tuple[int, ...] | None

    def adapter(self, seed: int) -> Adapter:
        """The adapter spec of one run; its projection seed is the run's, so each seed has its own P.

        Raises:
            SpecError: a kind of adapter that can be planned but not trained yet.
        """
        s = self.solution
        if s.adapter == "full":
            return FullUpdate()
        if s.adapter != "tinylora":
            raise SpecError(
                f"{s.trained_parameters:,} trained parameters take adapter {s.adapter}, which can be planned but not "
                "trained yet: lower the budget, or use --adapter tinylora or --adapter full"
            )
        assert s.rank is not None
        assert s.u is not None
        assert s.groups is not None
        return TinyLora(rank=s.rank, u=s.u, groups=s.groups, sharing=self.sharing, projection_seed=seed)


def size_from_budget(model: str, budget: Budget, storage_dtype: str, sharing: Sharing, rank: int) -> Size:
    """The largest update within `budget`, its payload stored in `storage_dtype`.

    Raises:
        SpecError: below one parameter, above the model, or not possible with this sharing.
    """
    shape = ALIASES[model].shape
    modules = shape.adapted_modules()
    _check_rank(model, rank, modules)
    solution = solve(modules, shape.parameters, budget.parameters(storage_dtype), rank=rank, sharing=sharing)
    return _with_groups(solution, modules, sharing)


def size_from_choice(
    model: str,
    adapter: str,
    *,
    rank: int = 2,
    u: int | None = None,
    groups: int | None = None,
    n_tie: int | None = None,
    sharing: Sharing = "tiled",
) -> Size:
    """The update that was chosen part by part.

    Args:
        model: alias.
        adapter: "tinylora", "lora-xs", "lora" or "full".
        rank: frozen rank r of tinylora and lora-xs, trained rank of lora.
        u: entries of v; 1 if None (tinylora).
        groups: number of groups g; every module its own if None (tinylora).
        n_tie: modules a group, instead of `groups`.
        sharing: how groups are formed.

    Raises:
        SpecError: unknown adapter, options that exclude each other or are out of range.
    """
    shape = ALIASES[model].shape
    modules = shape.adapted_modules()
    given = [n for n, v in (("--u", u), ("--groups", groups), ("--n-tie", n_tie)) if v is not None]
    if adapter != "tinylora" and given:
        raise SpecError(f"{', '.join(given)} belong to adapter tinylora, not to {adapter}")
    _check_rank(model, rank, modules)
    match adapter:
        case "full":
            return Size(Solution("full", shape.parameters), sharing, None)
        case "lora-xs":
            return Size(Solution("lora-xs", len(modules) * rank**2, rank=rank), sharing, None)
        case "lora":
            return Size(Solution("lora", rank * sum(m.d + m.k for m in modules), rank=rank), sharing, None)
        case "tinylora":
            pass
        case _:
            raise unknown("adapter", adapter, ("tinylora", "lora-xs", "lora", "full"))
    if groups is not None and n_tie is not None:
        raise SpecError("--groups and --n-tie say the same thing in two ways: give one of them")
    g = groups_from_n_tie(len(modules), n_tie) if n_tie is not None else groups or len(modules)
    if groups is not None and groups < 1:
        raise SpecError(f"{groups} groups are outside 1 … {len(modules)}, the number of adapted modules")
    wanted = 1 if u is None else u
    size = _with_groups(Solution("tinylora", g * wanted, rank=rank, u=wanted, groups=g), modules, sharing)
    assert size.group_of_module is not None
    check_u(wanted, rank, size.group_of_module)
    return size


def _check_rank(model: str, rank: int, modules: Sequence[ModuleShape]) -> None:
    largest = min(min(m.d, m.k) for m in modules)
    if not 1 <= rank <= largest:
        raise SpecError(f"rank {rank} is outside 1 … {largest} on {model}")


def _with_groups(solution: Solution, modules: Sequence[ModuleShape], sharing: Sharing) -> Size:
    if solution.groups is None:
        return Size(solution, sharing, None)
    return Size(solution, sharing, assign_groups([m.type for m in modules], solution.groups, sharing))


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
    solution = size.solution
    adapter = size.adapter(seed)
    if rate is None:
        rate = tuned_rate(model, task, method, solution.adapter, solution.trained_parameters).learning_rate
    return RunSpec.model_validate(
        {
            "model": model,
            "task": task,
            "method": method,
            "adapter": adapter,
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
