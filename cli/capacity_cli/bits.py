"""`capacity bits`: which updates are the smallest at their accuracy, and how much one arm saves over another."""

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
    from capacity_analysis.bits.configurations import Configurations
    from capacity_analysis.bits.frontier import FrontierPoint
    from capacity_analysis.bits.savings import AtSize, Saving


def bits_command(
    source: str | None,
    requantise: Path | None,
    by: str,
    unit: str | None,
    task: str | None,
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
    from capacity_analysis.bits.configurations import configurations
    from capacity_analysis.bits.frontier import frontier
    from capacity_analysis.bits.savings import at_equal_size, curves, savings
    from capacity_analysis.data.table import read_points

    points = read_points(source, allow_mixed=allow_mixed)
    found = configurations(points, unit=unit, task=task)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    places = frontier(found, replicates, rng, items)  # type: ignore[arg-type]
    arms = curves(found, tuple(name.strip() for name in by.split(",") if name.strip()))
    saved = savings(found, arms, replicates, rng, items)  # type: ignore[arg-type]
    equal = at_equal_size(found, arms, replicates, rng, items)  # type: ignore[arg-type]
    if as_json:
        result = {
            "source": source,
            "unit": found.unit,
            "method": found.method,
            "dispersion": found.dispersion,
            "items": items,
            "replicates": replicates,
            "seed": seed,
            "savings": [asdict(s) for s in saved],
            "frontier": [_place_json(p, found.unit) for p in places],
            "equal_size": [_equal_json(a) for a in equal],
            "rate_distortion": rates,
            "remarks": remarks,
        }
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    console = terminal()
    console.print(_view(found, places, saved, equal, rates), highlight=False, soft_wrap=not console.is_terminal)
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
    return {**place.configuration, **place.estimate.to_json("accuracy"), **rest}


def _equal_json(found: "AtSize") -> dict[str, Any]:
    where = {"model": found.model, "arm": found.arm, "size": found.size, "tested": found.tested}
    return {**where, **found.estimate.to_json("accuracy")}


def _view(
    found: "Configurations",
    places: "Sequence[FrontierPoint]",
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
    parts += [Text("Size at equal accuracy", style="bold"), *map(Text, _saving_lines(saved))]
    if not saved:
        parts.append(Text("One arm only: nothing to compare."))
    if equal:
        parts += [Text(""), Text(f"Accuracy at equal {found.unit}, %", style="bold"), _equal_table(equal, found.unit)]
    parts += [Text(""), Text(f"Intervals of the frontier's accuracies: {labels(p.estimate for p in places)}.")]
    parts += [Text(f"Members, savings and accuracies at equal size: {found.method}.")]
    return Group(*parts)


def _saving_lines(saved: "Sequence[Saving]") -> list[str]:
    """A line for each ratio; pairs that have none for one and the same reason share a line."""
    shown = _one_way(saved)
    lines = [saving_words(s) for s in shown if s.size_ratio is not None]
    without = [s for s in shown if s.size_ratio is None]
    for model, remark in dict.fromkeys((s.model, s.remark) for s in without):
        pairs = [f"{s.test} against {s.anchor}" for s in without if (s.model, s.remark) == (model, remark)]
        more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
        head = f"{model}: " if model else ""
        lines.append(f"{head}no number for {', '.join(pairs[:3])}{more}: {remark}")
    return lines


def _one_way(saved: "Sequence[Saving]") -> "list[Saving]":
    """Of every two arms the one that needs less over the other; the other way round is the inverse."""
    shown = []
    for index, s in enumerate(saved):
        inverse = next(i for i, o in enumerate(saved) if (o.model, o.test, o.anchor) == (s.model, s.anchor, s.test))
        ratio = 1.0 if s.size_ratio is None else s.size_ratio
        if ratio < 1 or (ratio == 1 and index < inverse):
            shown.append(s)
    return shown


def saving_words(s: "Saving") -> str:
    """ "m: grpo needs 0.08 × the size of sft (0.05 to 0.14), averaged over accuracies 60.1–84.0 %"."""
    model = f"{s.model}: " if s.model else ""
    assert s.size_ratio is not None
    ends = f" ({s.low:.3g} to {s.high:.3g})" if s.low is not None and s.high is not None else f" ({s.remark})"
    assert s.accuracy_low is not None
    assert s.accuracy_high is not None
    return (
        f"{model}{s.test} needs {s.size_ratio:.3g} × the size of {s.anchor}{ends}, averaged over accuracies "
        f"{100 * s.accuracy_low:.1f}–{100 * s.accuracy_high:.1f} %"
    )


def _frontier_table(places: "Sequence[FrontierPoint]", unit: str) -> RenderableType:
    from capacity_analysis.data.select import UNSEEN

    shown = ("model", "method", "demonstrations", "adapter", "storage_dtype", "sharing", "u", "groups")
    used = [name for name in shown if any(name in p.configuration for p in places)]
    if len({p.configuration.get("demonstrations") for p in places} - {UNSEEN}) <= 1:
        used = [name for name in used if name != "demonstrations"]
    rows = [
        (
            *(str(p.configuration.get(name, "")) for name in used),
            f"{p.configuration['trained_parameters']:,}",
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

    arms = list(dict.fromkeys(a.arm for a in equal))
    cells = {(a.model, a.size, a.arm): a.estimate.percent() + ("" if a.tested else " *") for a in equal}
    rows = [
        (model, f"{size:,.0f}", *(cells.get((model, size, arm), "") for arm in arms))
        for model, size in dict.fromkeys((a.model, a.size) for a in equal)
    ]
    return Group(
        rows_table(("model", unit, *arms), rows),
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
