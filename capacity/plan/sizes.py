"""How large an update is to be, as study files and commands ask for it, and what that comes to on a model. No torch."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from capacity.errors import BudgetError, SpecError, unknown
from capacity.plan.budget import Budget
from capacity.plan.kinds.kind import AdapterKind, Site, Size, Told
from capacity.plan.kinds.table import FULL, KINDS, LORA, LORA_XS, TINYLORA
from capacity.plan.kinds.tinylora import CHOICE_BITS, LARGEST_CHOSEN
from capacity.plan.model_shapes import ModelShape
from capacity.plan.models import model_shape
from capacity.spec.adapters import Allocation, Chooser, Projection, Scaling, Sharing
from capacity.spec.frozen import Frozen

DEFAULT_BUDGET = "100"
# What a budget takes where no adapter is named: the largest of these, the first of equals.
_SOLVED: tuple[AdapterKind, ...] = (TINYLORA, LORA_XS, LORA)
# The options that are parts of a size. The rank of TinyLoRA goes with a budget, so it is none.
_PARTS = {option for kind in KINDS.values() for option in kind.decided} - {"rank"}


def _readable(budget: str | int) -> str | int:
    Budget.parse(str(budget))
    return budget


def parse_targets(text: Any) -> Any:
    """Reads `q_proj,k_proj`; what is no text stays as it is.

    Raises:
        SpecError: an empty part.
    """
    if not isinstance(text, str):
        return text
    targets = tuple(part.strip() for part in text.split(","))
    if not all(targets):
        raise SpecError(f"--targets {text!r} cannot be read: write module types by comma, such as q_proj,k_proj")
    return targets


def parse_blocks(text: Any) -> Any:
    """Reads `0,3`; what is no text stays as it is.

    Raises:
        SpecError: a part that is no number.
    """
    if not isinstance(text, str):
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SpecError(f"--blocks {text!r} cannot be read: write numbers by comma, such as 0,3")
    return tuple(map(int, parts))


def _choice_bits(bits: int | None) -> int | None:
    if bits is not None and not 0 <= bits <= 16:
        raise SpecError(f"--projection-bits {bits} is outside 0 … 16")
    return bits


def _one_of(what: str, known: Sequence[str]) -> BeforeValidator:
    """Refuses other texts, and offers the nearest."""

    def checked(text: Any) -> Any:
        if isinstance(text, str) and text not in known:
            raise unknown(what, text, known)
        return text

    return BeforeValidator(checked)


class SizeChoice(Frozen):
    """How large an update is to be: within a budget, or chosen part by part.

    An entry of `sizes` in a study file, and the options of every command that takes a size: their help is the
    description of each field. With neither a budget nor an adapter nor a part of one, the budget is 100.
    """

    budget: Annotated[str | int, AfterValidator(_readable)] | None = Field(
        None,
        description="Largest update: 100 or 1,000 or 100k (parameters), 26B, 1KiB, 100MB or 208bit (stored). "
        "Default: 100, if no adapter is chosen.",
    )
    adapter: Annotated[str, _one_of("adapter", tuple(KINDS))] | None = Field(
        None, description=f"{', '.join(list(KINDS)[:-1])} or {list(KINDS)[-1]}. Default: the budget decides."
    )
    rank: int | None = Field(
        None,
        description="Frozen rank of tinylora and lora-xs, rank of the other LoRAs. "
        "Default: 2; tinylora on abacus models 8; vera 256, vb-lora and uni-lora 4.",
    )
    u: int | None = Field(None, description="Entries of the trained vector of each group (tinylora). Default: 1.")
    groups: int | None = Field(
        None, description="Number of groups that share a vector (tinylora). Default: every module its own."
    )
    n_tie: int | None = Field(None, description="Modules a group, instead of --groups (tinylora).")
    vectors: int | None = Field(None, description="Vectors in the bank (vb-lora). Default: 256.")
    vector_length: int | None = Field(
        None, description="Entries of each (vb-lora). Default: largest power of two up to 256 that fits."
    )
    length: int | None = Field(None, description="Entries of the one vector (uni-lora). Default: 256.")
    blocks: Annotated[tuple[int, ...], BeforeValidator(parse_blocks)] | None = Field(
        None, description="Blocks that are steered, counted from 0: 0,3 (steering). Default: all blocks."
    )
    targets: Annotated[tuple[str, ...], BeforeValidator(parse_targets)] | None = Field(
        None, description="Types of the modules to adapt: q_proj,k_proj. Default: all linear modules."
    )
    sharing: Annotated[Sharing, _one_of("sharing", get_args(Sharing))] = Field(
        "tiled", description="tiled (neighbours by depth) or structured (only modules of one type)."
    )
    scaling: Annotated[Scaling, _one_of("scaling", get_args(Scaling))] = Field(
        "paper", description="paper (U Σ R Vᵀ) or split (U √Σ R √Σ Vᵀ), for tinylora and lora-xs."
    )
    allocation: Annotated[Allocation, _one_of("allocation", get_args(Allocation))] = Field(
        "even", description="even, or gradient: groups with larger gradients get more entries (tinylora)."
    )
    projection: Annotated[Projection, _one_of("projection", get_args(Projection))] | None = Field(
        None,
        description="random (the paper's rule), or chosen among random candidates by gradient (tinylora). "
        f"Default: chosen on embedded models up to {LARGEST_CHOSEN} parameters, else random.",
    )
    projection_bits: Annotated[int | None, AfterValidator(_choice_bits)] = Field(
        None,
        description=f"Bits that choose the projection of each parameter, 0 to 16 (tinylora). Default: {CHOICE_BITS}.",
    )
    projection_by: Annotated[Chooser, _one_of("method", get_args(Chooser))] | None = Field(
        None, description="The method whose gradient chooses for all methods: grpo, rft, or own. Default: grpo."
    )

    @property
    def told(self) -> dict[str, Any]:
        """The options besides `budget` and `adapter` that are not at their defaults. Nothing tells of a random P."""
        told = self.model_dump(exclude={"budget", "adapter"}, exclude_defaults=True)
        if self.projection == "random":
            del told["projection"]
        return told

    @property
    def choice_bits(self) -> int:
        """The bits of the choice that each parameter adds to the payload, 0 for a random projection."""
        if self.projection != "chosen":
            return 0
        return CHOICE_BITS if self.projection_bits is None else self.projection_bits

    @property
    def limit(self) -> Budget | None:
        """The given budget, or 100 where nothing says how large the update is to be; None where an adapter is
        chosen.
        """
        if self.budget is not None:
            return Budget.parse(str(self.budget))
        open_size = self.adapter is None and not _PARTS & self.told.keys()
        return Budget.parse(DEFAULT_BUDGET) if open_size else None


def as_choice(size: SizeChoice | int | str | None) -> SizeChoice:
    """A choice from a budget: 13 parameters, "26B"; choices stay as they are, and None is the default one.

    Raises:
        BudgetError: a budget that cannot be read.
    """
    return size if isinstance(size, SizeChoice) else SizeChoice(budget=size)


def size_of(model: str, choice: SizeChoice, storage_dtype: str) -> Size:
    """What `choice` comes to on a model.

    Args:
        model: alias, hub id, folder or GGUF file.
        choice: what is asked for.
        storage_dtype: dtype of the payload that a budget in bytes or bits limits.

    Raises:
        SpecError: options that exclude each other, are out of range or belong to another adapter; a budget below
            the smallest or above the largest update.
    """
    return size_on(*model_shape(model), choice, storage_dtype)


def size_on(name: str, shape: ModelShape, choice: SizeChoice, storage_dtype: str) -> Size:
    """What `choice` comes to on a model of this shape, which is called `name` in errors.

    Raises:
        SpecError: as `size_of`.
    """
    told, budget = choice.told, choice.limit
    kind = None if choice.adapter is None else KINDS[choice.adapter]
    if kind is None and budget is None:
        kind = TINYLORA  # a part without an adapter is one of TinyLoRA's
    if kind is not None:
        _refuse_foreign(told, kind)
    if budget is not None:
        _refuse_decided(told, _PARTS if kind is None else set(kind.decided))
    site = Site(name, shape, choice.targets)
    if budget is None:
        assert kind is not None
        return kind.chosen(told, site)
    limit = budget.parameters(storage_dtype, choice.choice_bits)
    return largest_of_all(told, site, limit) if kind is None else largest_of(kind, told, site, limit)


def largest_of(kind: AdapterKind, told: Told, site: Site, limit: int) -> Size:
    """The largest update of one kind with at most `limit` parameters.

    Raises:
        BudgetError: not even its smallest update fits; that one's size is named.
        SpecError: an option is out of range, or the model has no such update.
    """
    size = kind.within(told, site, limit)
    if size.trained_parameters > limit:
        verb = "starts at" if kind.decided else "is"
        raise BudgetError(
            f"a budget of {limit:,} parameters is too small for adapter {kind.name}, which {verb} "
            f"{size.trained_parameters:,} on this model: raise it, or choose another adapter"
        )
    return size


def largest_of_all(told: Told, site: Site, limit: int) -> Size:
    """The largest update with at most `limit` parameters: of TinyLoRA, LoRA-XS and LoRA, or the whole model.

    Raises:
        BudgetError: `limit` is above the whole model.
        SpecError: an option is out of range, or the kind that is largest does not take it.
    """
    everything = site.shape.parameters
    if limit > everything:
        raise BudgetError(
            f"a budget of {limit:,} parameters is above the model, which has {everything:,}: "
            "lower it, or use --adapter full"
        )
    tried = _SOLVED if limit < everything else (FULL,)
    sizes = [kind.within({o: told[o] for o in kind.options if o in told}, site, limit) for kind in tried]
    fitting = [size for size in sizes if size.trained_parameters <= limit]
    best = max(fitting, key=lambda size: size.trained_parameters)
    # The rank is TinyLoRA's alone, so that it may be given whatever the budget takes.
    ignored = [option for option in told if option not in (*KINDS[best.kind].options, "rank")]
    if ignored:
        raise SpecError(
            f"the largest update within this budget is {best.kind}, which takes no {_flags(ignored)}: "
            "leave that out, or name an adapter with --adapter"
        )
    return best


def _refuse_foreign(told: Told, kind: AdapterKind) -> None:
    """Raises unless `kind` takes all options."""
    foreign = [option for option in told if option not in kind.options]
    if foreign:
        takes = f"it takes {_flags(kind.options)}" if kind.options else "it has one size"
        raise SpecError(f"adapter {kind.name} takes no {_flags(foreign)}: {takes}")


def _refuse_decided(told: Told, decided: set[str]) -> None:
    """Raises if an option is given that the budget decides."""
    both = [option for option in told if option in decided]
    if both:
        raise SpecError(f"give --budget, or {_flags(both)}, not both")


def _flags(options: Sequence[str]) -> str:
    return ", ".join("--" + option.replace("_", "-") for option in options)
