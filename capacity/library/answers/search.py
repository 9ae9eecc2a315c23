"""What a search without gradients shows of an adapter, for the answers of `express`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capacity_reports.blocks import Block, Cell, Column, Table, Text

if TYPE_CHECKING:
    from capacity.studies.express import Search


def search_blocks(
    line: str,
    columns: Sequence[Column],
    parts: Sequence[str],
    rows: Sequence[tuple[Cell, ...]],
    each: str,
    search: "Search",
) -> Sequence[Block]:
    """Returns the answer of a search, its table, and what it can and cannot tell.

    Args:
        line: the answer in one sentence.
        columns: those that say what each row is about.
        parts: the names of the shares that follow in each row.
        rows: the rows of the table.
        each: what tried the updates that `search` counts, such as "seed".
        search: how much was searched.
    """
    shares = (Column(part, part.replace("_", " ") + ", %") for part in parts)
    note = "The shares add up to 100 %. Each interval (95 %) is for its own share, fresh seeds and items."
    bound = (
        f"Each {each} tried {search.evaluations:,} updates on {search.items:,} training items. A search "
        "gives a lower bound of what an adapter expresses, never the ceiling."
    )
    return (
        Text((line,), strong=True),
        Table("expressible", "What the adapter expresses", (*columns, *shares), tuple(rows), note),
        Text((bound,)),
    )
