"""`capacity bits`: which updates are the smallest at their accuracy, and how much one curve saves over another."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.text import Text

from capacity.errors import SpecError
from capacity.studies.device import check_libraries
from capacity_cli.progress import ModuleProgress
from capacity_reports.tables import rows_table

if TYPE_CHECKING:
    from capacity_analysis.bits.cells import MeasuredCells
    from capacity_analysis.bits.frontier import FrontierPoint
    from capacity_analysis.bits.savings import AtSize, Saving
    from capacity_analysis.data.absent import Absent
    from capacity_analysis.thresholds.answers import ThresholdStudy


def bits_command(
    source: str | None,
    requantise: Path | None,
    by: str | None,
    unit: str | None,
    conditions: Sequence[str],
    items: str,
    replicates: int,
    seed: int,
    *,
    allow_mixed: bool,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    if (source is None) == (requantise is None):
        raise SpecError("give a points table (POINTS), or a study whose updates to store anew (--requantise STUDY)")
    if unit is not None and unit not in ("bytes", "parameters"):
        raise SpecError(f"--unit {unit!r}: choose bytes or parameters")
    if items not in ("these", "population"):
        raise SpecError(f"--items {items!r}: choose these or population")
    rates: list[dict[str, Any]] = []
    remarks: list[str] = []
    if requantise is not None:
        source, rates, remarks = _requantised(requantise, allow_mixed=allow_mixed)
    assert source is not None
    from capacity_analysis.bits.cells import measured_cells
    from capacity_analysis.bits.frontier import frontier
    from capacity_analysis.bits.savings import at_equal_size, mean_curves, savings
    from capacity_analysis.data.absent import Absent
    from capacity_analysis.data.table import read_points
    from capacity_analysis.data.where import where
    from capacity_analysis.thresholds.answers import headline_ratios

    points = where(read_points(source, allow_mixed=allow_mixed), conditions)
    found = measured_cells(points, unit)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    places = frontier(found, replicates, rng, items)  # type: ignore[arg-type]
    named = None if by is None else tuple(name.strip() for name in by.split(",") if name.strip())
    curves = mean_curves(found, named)
    saved = savings(found, curves, replicates, rng, items)  # type: ignore[arg-type]
    equal = at_equal_size(found, curves, replicates, rng, items)  # type: ignore[arg-type]
    ratios = headline_ratios(points, items)  # type: ignore[arg-type]
    remarks += points.lacking
    if as_json:
        result = {
            "source": source,
            "unit": found.unit,
            "method": found.method,
            "dispersion": found.dispersion,
            "items": items,
            "replicates": replicates,
            "seed": seed,
            "ratios": [] if isinstance(ratios, Absent) else ratios.to_json()["ratios"],
            "savings": [asdict(s) for one in saved for s in (one, one.inverse)],
            "frontier": [_place_json(p, found.unit) for p in places],
            "equal_size": [_equal_json(a) for a in equal],
            "rate_distortion": rates,
            "remarks": remarks,
        }
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    console = terminal()
    shown = _view(found, places, ratios, saved, equal, rates)
    console.print(shown, highlight=False, soft_wrap=not console.is_terminal)
    for remark in remarks:
        console.print(remark, highlight=False, soft_wrap=True)


def terminal() -> Console:
    """Where a wide table goes: the terminal, or a file whose lines may be as long as the table needs."""
    console = Console()
    return console if console.is_terminal else Console(width=1000)


def _requantised(study: Path, *, allow_mixed: bool) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Stores the study's updates anew in every dtype: the points table of that, rate–distortion rows, remarks."""
    from capacity.runs.study import Study, one_fingerprint

    one_fingerprint(Study(study).runs(), study, allow_mixed=allow_mixed)
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from capacity.studies.device import device
    from capacity.studies.requantise import requantise

    with ModuleProgress("updates") as progress:
        done = requantise(Study(study), device(), on_update=progress.on_count)
    remarks = [f"{label} does not fit {dtype}: {reason}" for label, dtype, reason in done.unfit]
    rows = [_rate_distortion(row) for row in done.summary()]
    rounded = sorted({str(row["trained_as"]) for row in rows} - {"fp32"})
    if rounded:
        remarks.append(f"Updates were rounded to {', '.join(rounded)} when trained: no dtype gives more back.")
    return str(done.points), rows, remarks


def _rate_distortion(row: dict[str, Any]) -> dict[str, Any]:
    """Adds the paired change of accuracy, and Shannon's limit for Gaussian numbers at as many bits a parameter."""
    from capacity_analysis.statistics.estimate import difference_estimate
    from capacity_analysis.statistics.quantisers import shannon_distortion

    stored, trained = np.array(row.pop("outcomes")), np.array(row.pop("as_trained"))
    change = difference_estimate(stored, trained)
    ends = {"change": change.value, "change_low": change.low, "change_high": change.high, "interval": change.label}
    return {**row, **ends, "gaussian_limit": float(shannon_distortion(row["bits_per_parameter"]))}


def _place_json(place: "FrontierPoint", unit: str) -> dict[str, Any]:
    rest = {"size": place.size, "on_frontier": place.on_frontier, "membership": place.membership, "unit": unit}
    return {**place.known, "cell": place.cell, **place.estimate.to_json("accuracy"), **rest}


def _equal_json(found: "AtSize") -> dict[str, Any]:
    where = {"model": found.model, "curve": found.curve, "size": found.size, "tested": found.tested}
    return {**where, **found.estimate.to_json("accuracy")}


def _view(
    found: "MeasuredCells",
    places: "Sequence[FrontierPoint]",
    ratios: "ThresholdStudy | Absent",
    saved: "Sequence[Saving]",
    equal: "Sequence[AtSize]",
    rates: Sequence[dict[str, Any]],
) -> RenderableType:
    from capacity_analysis.statistics.estimate import labels

    parts: list[RenderableType] = []
    if rates:
        parts += [Text("Rate and distortion of the trained updates", style="bold"), _rates_table(rates), Text("")]
    parts += [
        Text(
            f"Frontier of accuracy over {found.unit}, each model, method and demonstrations, the base free",
            style="bold",
        )
    ]
    parts += [_frontier_table(places, found.unit), Text("")]
    parts += [Text("Ratios of thresholds", style="bold"), *map(Text, ratio_lines(ratios)), Text("")]
    parts += [Text("Size at equal accuracy", style="bold"), *map(Text, _saving_lines(saved))]
    if not saved:
        parts.append(Text("One curve only: nothing to compare."))
    if equal:
        parts += [Text(""), Text(f"Accuracy at equal {found.unit}, %", style="bold"), _equal_table(equal, found.unit)]
    parts += [Text(""), Text(f"Intervals of the frontier's accuracies: {labels(p.estimate for p in places)}.")]
    parts += [Text(f"Members, savings and accuracies at equal size: {found.method}.")]
    return Group(*parts)


def ratio_lines(ratios: "ThresholdStudy | Absent") -> list[str]:
    """The headline of each pair, as `capacity threshold` gives it, or why there is none."""
    from capacity_analysis.data.absent import Absent

    if isinstance(ratios, Absent):
        return [f"not available: {ratios.reason}"]
    asked = f"{100 * ratios.question.gain:g} % of the gain"
    return [f"{line} (for {asked})." for line in ratios.sentences()] or ["One curve only: nothing to compare."]


def _saving_lines(saved: "Sequence[Saving]") -> list[str]:
    """A line for each ratio; pairs that have none for one and the same reason share a line."""
    lines = [saving_words(s) for s in saved if s.size_ratio is not None]
    without = [s for s in saved if s.size_ratio is None]
    for model, remark in dict.fromkeys((s.model, s.remark) for s in without):
        pairs = [f"{s.test} : {s.anchor}" for s in without if (s.model, s.remark) == (model, remark)]
        more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
        head = f"{model}: " if model else ""
        lines.append(f"{head}no number for {', '.join(pairs[:3])}{more}: {remark}")
    return lines


def saving_words(s: "Saving") -> str:
    """ "m: sft needs 12.5 × the size of grpo (7.1 to 20), Bjøntegaard's average over accuracies 60.1–84.0 %"."""
    model = f"{s.model}: " if s.model else ""
    assert s.size_ratio is not None
    ends = f" ({s.low:.3g} to {s.high:.3g})" if s.low is not None and s.high is not None else f" ({s.remark})"
    assert s.accuracy_low is not None
    assert s.accuracy_high is not None
    return (
        f"{model}{s.test} needs {s.size_ratio:.3g} × the size of {s.anchor}{ends}, Bjøntegaard's average over "
        f"accuracies {100 * s.accuracy_low:.1f}–{100 * s.accuracy_high:.1f} %"
    )


_BESIDE = ("trained_parameters", "learning_rate")  # in a column of its own, and tuned at each size


def _frontier_table(places: "Sequence[FrontierPoint]", unit: str) -> RenderableType:
    from capacity_analysis.data.recipes import UNSEEN

    usual = ("model", "method", "demonstrations", "adapter", "storage_dtype", "sharing", "u", "groups")
    further = dict.fromkeys(name for p in places for name in p.known if name not in (*usual, *_BESIDE))
    used = [name for name in (*usual, *further) if any(name in p.known for p in places)]
    used = [name for name in used if name not in further or len({p.known.get(name) for p in places}) > 1]
    if len({p.known.get("demonstrations") for p in places} - {UNSEEN}) <= 1:
        used = [name for name in used if name != "demonstrations"]
    rows = [
        (
            *(str(p.known.get(name, "")) for name in used),
            f"{p.known['trained_parameters']:,}",
            f"{p.size:,.0f}",
            p.estimate.percent(),
            "on" if p.on_frontier else "",
            "" if p.membership is None else f"{100 * p.membership:.0f} %",
        )
        for p in places
    ]
    headings = (*(name.replace("storage_", "") for name in used), "trained", unit, "accuracy %", "frontier", "member")
    return rows_table(headings, rows)


def _equal_table(equal: "Sequence[AtSize]", unit: str) -> RenderableType:
    from capacity_analysis.statistics.estimate import labels

    curves = list(dict.fromkeys(a.curve for a in equal))
    cells = {(a.model, a.size, a.curve): a.estimate.percent() + ("" if a.tested else " *") for a in equal}
    rows = [
        (model, f"{size:,.0f}", *(cells.get((model, size, curve), "") for curve in curves))
        for model, size in dict.fromkeys((a.model, a.size) for a in equal)
    ]
    return Group(
        rows_table(("model", unit, *curves), rows),
        Text(
            "* between tested sizes, straight in the logarithm of the size. All on monotone curves; "
            f"intervals: {labels(a.estimate for a in equal)}."
        ),
    )


def _rates_table(rates: Sequence[dict[str, Any]]) -> RenderableType:
    rows = [
        (
            r["model"],
            f"{r['method']} {r['differs']}".rstrip(),
            f"{r['trained_parameters']:,}",
            r["storage_dtype"],
            f"{r['codes_bytes']:,.0f} + {r['scale_bytes']:,.0f}",
            f"{r['header_bytes']:,.0f}",
            f"{r['total_bytes']:,.0f}",
            f"{r['bits_per_parameter']:.2f}",
            f"{r['distortion']:.1e}",
            f"{r['gaussian_limit']:.1e}",
            f"{100 * r['accuracy']:.1f}",
            f"{100 * r['change']:+.1f} ({100 * r['change_low']:+.1f} to {100 * r['change_high']:+.1f})",
        )
        for r in rates
    ]
    headings = (
        "model", "method", "trained", "dtype", "codes + scales B", "header B", "total B", "bits/parameter",
        "distortion", "Gaussian limit", "accuracy %", "change (95 %)",
    )  # fmt: skip
    return Group(
        rows_table(headings, rows),
        Text(
            "Distortion: ‖stored − trained‖² / ‖trained‖²; the limit is Shannon's for Gaussian numbers at as many "
            "payload bits. Change: accuracy in points against the update as trained, paired by seed and item; "
            f"intervals: {'; '.join(dict.fromkeys(r['interval'] for r in rates))}."
        ),
    )
