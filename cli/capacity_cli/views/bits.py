"""What `capacity bits` prints: rate and distortion, the frontier, ratios, savings, accuracies at equal size."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from capacity.library.bits import Bits
from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.bits.savings import AtSize
from capacity_analysis.data.recipes import UNSEEN
from capacity_analysis.statistics.estimate import labels
from capacity_reports.tables import rows_table

_BESIDE = ("trained_parameters", "learning_rate")  # in a column of its own, and tuned at each size


def bits_view(shown: Bits) -> RenderableType:
    """Everything, in its order."""
    unit = shown.found.unit
    parts: list[RenderableType] = []
    if shown.rates:
        parts += [Text("Rate and distortion of the trained updates", style="bold"), _rates_table(shown.rates), Text("")]
    frontier = f"Frontier of accuracy over {unit}, each model, method and demonstrations, the base free"
    parts += [Text(frontier, style="bold"), _frontier_table(shown.places, unit), Text("")]
    parts += [Text("Ratios of thresholds", style="bold"), *map(Text, shown.ratio_lines), Text("")]
    parts += [Text("Size at equal accuracy", style="bold"), *map(Text, shown.saving_lines)]
    if shown.equal:
        parts += [Text(""), Text(f"Accuracy at equal {unit}, %", style="bold"), _equal_table(shown.equal, unit)]
    parts += [Text(""), Text(f"Intervals of the frontier's accuracies: {labels(p.estimate for p in shown.places)}.")]
    parts += [Text(f"Members, savings and accuracies at equal size: {shown.found.method}.")]
    return Group(*parts)


def _frontier_table(places: Sequence[FrontierPoint], unit: str) -> RenderableType:
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


def _equal_table(equal: Sequence[AtSize], unit: str) -> RenderableType:
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
