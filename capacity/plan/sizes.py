"""From options (--budget, --adapter, --rank, …) to the size of an update on a model, and to its spec. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter

from capacity.errors import SpecError, unknown
from capacity.plan import budget as counts
from capacity.plan.budget import AdapterKind, Budget, ModuleShape, Solution
from capacity.plan.model_names import parse_model
from capacity.plan.model_shapes import ModelShape
from capacity.plan.models import ALIASES, model_shape
from capacity.plan.sharing import Sharing, assign_groups, check_u, groups_from_n_tie
from capacity.spec.adapters import Adapter

Scaling = Literal["paper", "split"]
Allocation = Literal["even", "gradient"]

# What each adapter can be told; the names are those of the fields of `SizeChoice`.
OPTIONS: dict[AdapterKind, tuple[str, ...]] = {
    "tinylora": ("rank", "u", "groups", "n_tie", "sharing", "scaling", "allocation", "targets"),
    "lora-xs": ("rank", "scaling", "targets"),
    "lora": ("rank", "targets"),
    "vera": ("rank", "targets"),
    "vb-lora": ("rank", "vectors", "vector_length", "targets"),
    "uni-lora": ("rank", "length", "targets"),
    "bitfit": (),
    "full": (),
}
# Which of it follows from a budget.
DECIDED_BY_BUDGET: dict[AdapterKind, tuple[str, ...]] = {
    "tinylora": ("u", "groups", "n_tie"),
    "lora-xs": ("rank",),
    "lora": ("rank",),
    "vera": ("rank",),
    "vb-lora": ("vectors",),
    "uni-lora": ("length",),
    "bitfit": (),
    "full": (),
}
# Our adapters start at the paper's rank; the comparators have PEFT's own defaults.
DEFAULT_RANKS: dict[AdapterKind, int] = {
    "tinylora": 2,
    "lora-xs": 2,
    "lora": 2,
    "vera": 256,
    "vb-lora": 4,
    "uni-lora": 4,
}
DEFAULT_VECTORS = 256
DEFAULT_LENGTH = 256
# The field of an adapter's spec that takes the seed of a run, so each seed has its own random parts.
_SEEDED: dict[AdapterKind, str] = {
    "tinylora": "projection_seed",
    "lora": "init_seed",
    "vera": "projection_seed",
    "vb-lora": "init_seed",
    "uni-lora": "projection_seed",
}
_SPECS: TypeAdapter[Adapter] = TypeAdapter(Adapter)


@dataclass(frozen=True)
class SizeChoice:
    """How large an update is to be: within a budget, or chosen part by part.

    Attributes:
        budget: the largest update within it is taken, of `adapter` if that is named.
        adapter: its kind; tinylora if None and there is no budget.
        rank: frozen rank r of tinylora and lora-xs, trained rank of lora, rank of the comparators.
        u: entries of v; 1 if None (tinylora).
        groups: number of groups g; every module its own if None (tinylora).
        n_tie: modules a group, instead of `groups`.
        vectors, vector_length: the bank of vb-lora.
        length: entries of the vector of uni-lora.
        targets: types of the modules to adapt; all linear modules if None.
        sharing: how groups are formed.
        scaling: where Σ stands, see `capacity.spec.run.TinyLora`.
        allocation: how entries are dealt to groups, see there.
    """

    budget: Budget | None = None
    adapter: str | None = None
    rank: int | None = None
    u: int | None = None
    groups: int | None = None
    n_tie: int | None = None
    vectors: int | None = None
    vector_length: int | None = None
    length: int | None = None
    targets: tuple[str, ...] | None = None
    sharing: Sharing = "tiled"
    scaling: Scaling = "paper"
    allocation: Allocation = "even"

    @property
    def given(self) -> tuple[str, ...]:
        """The options besides `budget` and `adapter` that are not at their defaults."""
        options = [f for f in fields(self) if f.name not in ("budget", "adapter")]
        return tuple(f.name for f in options if getattr(self, f.name) != f.default)


@dataclass(frozen=True)
class Size:
    """The size of an update on a model: what a `SizeChoice` comes to.

    Attributes:
        solution: kind and numbers.
        modules: what it sits on; empty for bitfit and full.
        targets: their types in order of depth, None if they are all linear modules of the model.
        group_of_module: group index of every module, None for all but tinylora.
        sharing, scaling, allocation: as chosen.
    """

    solution: Solution
    modules: tuple[ModuleShape, ...]
    targets: tuple[str, ...] | None
    group_of_module: tuple[int, ...] | None
    sharing: Sharing
    scaling: Scaling
    allocation: Allocation

    def adapter(self, seed: int) -> Adapter:
        """The adapter spec of one run; its projection or start is drawn from the run's seed."""
        s = self.solution
        numbers = {f.name: getattr(s, f.name) for f in fields(s) if f.name not in ("adapter", "trained_parameters")}
        spec: dict[str, Any] = {"kind": s.adapter, **{k: v for k, v in numbers.items() if v is not None}}
        for option in ("targets", "sharing", "scaling", "allocation"):
            if option in OPTIONS[s.adapter]:
                spec[option] = getattr(self, option)
        if s.adapter in _SEEDED:
            spec[_SEEDED[s.adapter]] = seed
        return _SPECS.validate_python(spec)

    @property
    def tuned_as(self) -> str:
        """The kind under which its learning rate is looked up: another scaling makes other steps of the same rate."""
        return self.solution.adapter if self.scaling == "paper" else f"{self.solution.adapter}-{self.scaling}"


def size_of(model: str, choice: SizeChoice, storage_dtype: str) -> Size:
    """What `choice` comes to on a model.

    Args:
        model: alias, or the folder of a model.
        choice: what is asked for.
        storage_dtype: dtype of the payload that a budget in bytes or bits limits.

    Raises:
        SpecError: options that exclude each other, are out of range or belong to another adapter; a budget below
            the smallest or above the largest update.
    """
    named = None if choice.adapter is None else _kind(choice.adapter)
    kind = named or (None if choice.budget else "tinylora")
    _check_options(choice, kind)
    name, shape = model_shape(model)
    modules = () if kind in ("bitfit", "full") else shape.adapted_modules(choice.targets)
    rank = choice.rank if choice.rank is not None else _default_rank(kind or "tinylora", name)
    if rank < 1 and kind == "vera":
        raise SpecError(f"rank {rank} is below 1")
    # VeRA's random factors are shared by all modules, and may be wider than a module.
    if modules and kind != "vera" and not 1 <= rank <= counts.smallest_side(modules):
        raise SpecError(f"rank {rank} is outside 1 … {counts.smallest_side(modules)} on {name}")
    if choice.budget is None:
        assert kind is not None
        solution = _chosen(kind, choice, rank, modules, shape)
    else:
        limit = choice.budget.parameters(storage_dtype)
        if kind is None:
            solution = counts.solve(modules, shape.parameters, limit, rank=rank, sharing=choice.sharing)
            _check_taken(solution, choice)
        else:
            solution = counts.largest_of(
                kind,
                modules,
                limit,
                rank=rank,
                vector_length=choice.vector_length,
                model_parameters=shape.parameters,
                biases=shape.biases,
            )
    return _with_groups(solution, choice, modules, shape)


def _default_rank(kind: AdapterKind, model: str) -> int:
    """The rank where none is chosen; the embedded models have their own for tinylora."""
    base = parse_model(model).base
    if kind == "tinylora" and base in ALIASES:
        return ALIASES[base].tinylora_rank
    return DEFAULT_RANKS.get(kind, 1)


def _kind(text: str) -> AdapterKind:
    if text not in OPTIONS:
        raise unknown("adapter", text, OPTIONS)
    return text


def _flags(options: Sequence[str]) -> str:
    return ", ".join("--" + option.replace("_", "-") for option in options)


def _check_options(choice: SizeChoice, kind: AdapterKind | None) -> None:
    """Refuses options that `kind` does not have, and those that a budget decides. `kind` None: the solver chooses."""
    if kind is not None:
        foreign = [o for o in choice.given if o not in OPTIONS[kind]]
        if foreign:
            takes = f"it takes {_flags(OPTIONS[kind])}" if OPTIONS[kind] else "it has one size"
            raise SpecError(f"adapter {kind} takes no {_flags(foreign)}: {takes}")
    if choice.budget is not None:
        decided = {o for options in DECIDED_BY_BUDGET.values() for o in options} - {"rank"}
        both = [o for o in choice.given if o in (decided if kind is None else DECIDED_BY_BUDGET[kind])]
        if both:
            raise SpecError(f"give --budget, or {_flags(both)}, not both")


def _check_taken(solution: Solution, choice: SizeChoice) -> None:
    """Refuses options that would be ignored by the adapter that the budget takes. The rank is TinyLoRA's alone."""
    ignored = [o for o in choice.given if o not in OPTIONS[solution.adapter] and o != "rank"]
    if ignored:
        raise SpecError(
            f"the largest update within this budget is {solution.adapter}, which takes no {_flags(ignored)}: "
            "leave that out, or name an adapter with --adapter"
        )


def _chosen(
    kind: AdapterKind, choice: SizeChoice, rank: int, modules: tuple[ModuleShape, ...], shape: ModelShape
) -> Solution:
    """The update that was chosen part by part."""
    match kind:
        case "tinylora":
            solution = counts.tinylora(_groups(choice, len(modules)), 1 if choice.u is None else choice.u, rank)
        case "lora-xs":
            solution = counts.lora_xs(modules, rank)
        case "lora":
            solution = counts.lora(modules, rank)
        case "vera":
            solution = counts.vera(modules, rank)
        case "vb-lora":
            vectors = DEFAULT_VECTORS if choice.vectors is None else choice.vectors
            length = counts.largest_vector_length(modules) if choice.vector_length is None else choice.vector_length
            solution = counts.vb_lora(modules, rank, vectors, length)
        case "uni-lora":
            solution = counts.uni_lora(modules, rank, DEFAULT_LENGTH if choice.length is None else choice.length)
        case "bitfit":
            solution = counts.bitfit(shape.biases)
        case "full":
            solution = counts.full(shape.parameters)
    return solution


def _groups(choice: SizeChoice, modules: int) -> int:
    if choice.groups is not None and choice.n_tie is not None:
        raise SpecError("--groups and --n-tie say the same thing in two ways: give one of them")
    if choice.n_tie is not None:
        return groups_from_n_tie(modules, choice.n_tie)
    return modules if choice.groups is None else choice.groups


def _with_groups(solution: Solution, choice: SizeChoice, modules: tuple[ModuleShape, ...], shape: ModelShape) -> Size:
    """The size with the group of every module, and its targets in canonical order: one adapter, one spec."""
    types = tuple(m.type for m in modules)
    groups = None
    if solution.adapter == "tinylora":
        assert solution.groups is not None
        assert solution.u is not None
        assert solution.rank is not None
        groups = assign_groups(types, solution.groups, choice.sharing)
        check_u(solution.u, solution.rank, groups)
    everything = choice.targets is None or (modules == shape.linears and not shape.expert_tensors)
    targets = None if everything else tuple(dict.fromkeys(types))
    return Size(solution, modules, targets, groups, choice.sharing, choice.scaling, choice.allocation)
