"""The options that say how large an update is to be, alike in every command that takes them."""

from typing import cast, get_args

from capacity.errors import SpecError, unknown
from capacity.plan.budget import Budget
from capacity.plan.sizes import Allocation, Scaling, SizeChoice
from capacity_cli.choices import sharing_choice

DEFAULT_BUDGET = "100"


def size_choice(
    *,
    budget: str | None,
    adapter: str | None,
    rank: int | None,
    u: int | None,
    groups: int | None,
    n_tie: int | None,
    vectors: int | None,
    vector_length: int | None,
    length: int | None,
    targets: str | None,
    sharing: str,
    scaling: str,
    allocation: str,
) -> SizeChoice:
    """What these options ask for: with neither a budget nor an adapter nor a part of one, a budget of 100.

    Raises:
        SpecError: an option that cannot be read.
    """
    parts = (adapter, u, groups, n_tie, vectors, vector_length, length)
    if budget is None and all(part is None for part in parts):
        budget = DEFAULT_BUDGET
    return SizeChoice(
        budget=None if budget is None else Budget.parse(budget),
        adapter=adapter,
        rank=rank,
        u=u,
        groups=groups,
        n_tie=n_tie,
        vectors=vectors,
        vector_length=vector_length,
        length=length,
        targets=parse_targets(targets),
        sharing=sharing_choice(sharing),
        scaling=cast(Scaling, _one_of("scaling", scaling, get_args(Scaling))),
        allocation=cast(Allocation, _one_of("allocation", allocation, get_args(Allocation))),
    )


def parse_targets(text: str | None) -> tuple[str, ...] | None:
    """Reads `q_proj,k_proj`; None stays None.

    Raises:
        SpecError: an empty part.
    """
    if text is None:
        return None
    targets = tuple(part.strip() for part in text.split(","))
    if not all(targets):
        raise SpecError(f"--targets {text!r} cannot be read: write module types by comma, such as q_proj,k_proj")
    return targets


def _one_of(what: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise unknown(what, text, known)
    return text
