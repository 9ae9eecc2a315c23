"""Which updates are the smallest at their accuracy, in a few lines, and what storing them in another dtype costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from capacity.library.answers import answer, leading, named, several
from capacity_analysis.bits.cells import SHOWN
from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.bits.savings import Saving
from capacity_analysis.statistics.estimate import labels
from capacity_analysis.words import times
from capacity_reports.blocks import Block, Column, Table

ENOUGH = 0.01  # a dtype that surely loses less of the accuracy than this is good enough
_PLACES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("adapter", "adapter"),
    Column("size", "size", "count"),
    Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
    Column("low", "95 % low", "percent"),
    Column("high", "95 % high", "percent"),
    Column("seeds", "seeds", "count"),
)
_RATES = (
    Column("model", "model"),
    Column("method", "method"),
    Column("parameters", "parameters", "count"),
    Column("dtype", "dtype"),
    Column("bytes", "bytes", "count"),
    Column("change", "change, points", "points", ends=("low", "high")),
    Column("low", "95 % low", "points"),
    Column("high", "95 % high", "points"),
)
_PAIRS = 3  # lines of pairs at most


def bits_answer(places: Sequence[FrontierPoint], saved: Sequence[Saving], unit: str) -> tuple[Block, ...]:
    """One pair of each model in a line, how many pairs are decided, and a table of the frontier."""
    known = [saving for saving in saved if saving.size_ratio is not None]
    on = [place for place in places if place.on_frontier]
    lines = [
        f"On the frontier of accuracy over {unit}: {len(on)} of {len(places)} updates.",
        *several([_line(saving, unit) for saving in leading(known)], _PAIRS, "models"),
    ]
    if known:
        lines.append(
            f"At equal accuracy, pairs whose interval excludes 1×: {sum(map(_decided, known))} of {len(known)}."
        )
    else:
        lines.append("No two curves share a range of accuracies, so no saving is known.")
    if places and all(place.seeds == 1 for place in places):
        lines.append("With one seed: no claim about methods, as the spread between seeds is unknown.")
    return answer(lines, _frontier(on, unit))


def _decided(saving: Saving) -> bool:
    return (saving.low is not None and saving.low > 1) or (saving.high is not None and saving.high < 1)


def _line(saving: Saving, unit: str) -> str:
    where, one, other = named(saving.model, saving.test, saving.anchor)
    ratio = times(saving.size_ratio or 0.0)
    low = "0" if saving.low is None else times(saving.low)[:-1]
    high = "∞" if saving.high is None else times(saving.high)[:-1]
    ends = "" if saving.low is None and saving.high is None else f" ({low}–{high})"
    if not _decided(saving):
        return f"{where}{one} : {other} is not decided, {ratio}{ends}."
    return f"{where}{one} takes {ratio}{ends} the {unit} of {other}."


def _frontier(places: Sequence[FrontierPoint], unit: str) -> Table:
    rows = tuple(
        (
            *(_text(p.known.get(name)) for name in ("model", "method")),
            _adapter(p),
            p.size,
            p.accuracy,
            p.low,
            p.high,
            p.seeds,
        )
        for p in places
    )
    title = f"Smallest updates at their accuracy, {unit}"
    return Table("frontier", title, _PLACES, rows, f"Intervals: {labels(p.estimate for p in places)}.")


def _adapter(place: FrontierPoint) -> str:
    """The kind of the adapter with the fields beside its size in which cells of the table differ."""
    others = (f"{name}={value}" for name, value in place.known.items() if name not in SHOWN)
    return ", ".join((str(place.known.get("adapter", "")), *others))


def _text(value: str | float | int | None) -> str | None:
    return None if value is None else str(value)


def rates_answer(rates: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """The smallest dtype that surely loses little accuracy, the smallest of all, and a table of dtypes."""
    by_dtype: dict[str, list[Mapping[str, Any]]] = {}
    for rate in rates:
        by_dtype.setdefault(str(rate["storage_dtype"]), []).append(rate)
    sizes = {dtype: sum(r["total_bytes"] for r in own) / len(own) for dtype, own in by_dtype.items()}
    ranked = sorted(sizes, key=sizes.__getitem__)
    enough = next((dtype for dtype in ranked if (_loss(by_dtype[dtype]) or 1.0) < ENOUGH), None)
    points = f"{100 * ENOUGH:g} point"
    if enough is None:
        lines = [f"No dtype is shown to lose less than {points} of accuracy in every cell."]
    else:
        lines = [f"{enough} is enough: {_said(by_dtype[enough], sizes[enough])}."]
    if enough != ranked[0]:
        lines.append(f"{ranked[0]} is the smallest: {_said(by_dtype[ranked[0]], sizes[ranked[0]])}.")
    return answer(lines, _table(rates))


def _loss(rates: Sequence[Mapping[str, Any]]) -> float | None:
    """The most accuracy that any cell may lose, by the lower ends of its intervals; None without intervals."""
    ends = [rate["change_low"] for rate in rates]
    return None if None in ends else max(0.0, *(-end for end in ends))


def _said(rates: Sequence[Mapping[str, Any]], size: float) -> str:
    loss, cells = _loss(rates), "its one cell" if len(rates) == 1 else f"each of {len(rates)} cells"
    lost = "loses an unknown share of the accuracy" if loss is None else f"loses less than {100 * loss:.1f} points"
    return f"{size:,.0f} bytes with its header, {lost} in {cells}"


def _table(rates: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            str(r["model"]),
            " ".join(part for part in (str(r["method"]), str(r["differs"])) if part),
            r["trained_parameters"],
            str(r["storage_dtype"]),
            r["total_bytes"],
            r["change"],
            r["change_low"],
            r["change_high"],
        )
        for r in rates
    )
    intervals = "; ".join(dict.fromkeys(str(r["interval"]) for r in rates))
    return Table("rates", "Updates stored anew, and the change of accuracy", _RATES, rows, f"Intervals: {intervals}.")
