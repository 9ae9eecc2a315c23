"""Description lengths in a few lines: what each method may have learnt, and how many bits its update holds."""

from capacity.library.answers import LINES, answer, several
from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.descriptions import CellLengths, Description
from capacity_reports.blocks import Block, Cell, Column, Table

_COLUMNS = (
    Column("cell", "cell"),
    Column("learnt", "bits learnt from demonstrations", "number", ends=("low", "high")),
    Column("low", "95 % low", "number"),
    Column("high", "95 % high", "number"),
    Column("rewards", "bits of rewards, at most", "number"),
    Column("payload", "bits of the update", "number"),
    Column("seeds", "seeds", "count"),
)
_NOTE = (
    "Bits learnt are the excess description length. Bits of rewards are a cap. Bits of the update are its payload. "
    "Do not divide one of these by another."
)


def lengths_answer(found: Description) -> tuple[Block, ...]:
    """A line a cell, and the three lengths of each cell side by side."""
    models = {one.model for one in found.cells}
    names = [_name(one, several_models=len(models) > 1) for one in found.cells]
    lines = several([_line(name, one) for name, one in zip(names, found.cells, strict=True)], LINES, "cells")
    rows = tuple(_row(name, one) for name, one in zip(names, found.cells, strict=True))
    return answer(lines, Table("lengths", "Description lengths, bits", _COLUMNS, rows, _NOTE))


def _name(one: CellLengths, *, several_models: bool) -> str:
    parts = (one.model if several_models else "", one.method, f"{one.trained_parameters:,}", one.differs)
    return " ".join(part for part in parts if part)


def _line(name: str, one: CellLengths) -> str:
    payload, learnt, rewards = (_mean(one, key) for key in ("payload_bits", "excess_bits", "reward_live_bits"))
    holds = "" if payload is None else f"; its update holds {payload:,.0f} bits"
    if learnt is not None:
        return f"{name}: {learnt:,.0f} bits learnt from demonstrations{holds}."
    if rewards is not None:
        return f"{name}: {rewards:,.0f} bits of rewards at most{holds}."
    return f"{name}: neither bits learnt nor bits of rewards are measured{holds}."


def _mean(one: CellLengths, key: str) -> float | None:
    value = one.values.get(key)
    return None if value is None or isinstance(value, Absent) else value.estimate


def _row(name: str, one: CellLengths) -> tuple[Cell, ...]:
    learnt = one.values.get("excess_bits")
    known = learnt is not None and not isinstance(learnt, Absent)
    ends = (learnt.estimate, learnt.low, learnt.high) if known else (None, None, None)  # type: ignore[union-attr]
    return name, *ends, _mean(one, "reward_live_bits"), _mean(one, "payload_bits"), len(one.seeds)
