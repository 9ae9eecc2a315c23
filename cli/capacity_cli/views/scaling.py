"""Threshold against model size as text for a terminal: what `capacity threshold --scaling` adds."""

from collections.abc import Sequence
from math import isfinite

from rich.console import Group, RenderableType
from rich.text import Text

from capacity_analysis.data.absent import Absent
from capacity_analysis.scaling.curves import ScalingResult
from capacity_analysis.scaling.fit import Coefficient, Prediction
from capacity_reports.tables import rows_table


def scaling_view(results: Sequence[ScalingResult], unit: str = "parameters") -> RenderableType:
    """Slope and predictions of every curve and target. `unit`: of the thresholds."""
    parts: list[RenderableType] = []
    for result in results:
        head = f"Threshold against model size: {result.curve}" + (f", {result.target}" if result.target else "")
        parts.append(Text(head, style="bold"))
        if isinstance(result.fit, Absent):
            parts += [Text(f"cannot be estimated: {result.fit.reason}"), Text("")]
            continue
        slope = _interval(result.fit.slope)
        parts.append(Text(f"slope {slope} decades of threshold a decade of model size ({result.fit.method})"))
        several = len(result.fit.families) > 1
        rows = [
            (
                f"{p.model_parameters:,.0f}" + (f" {family}" if several else ""),
                "" if p.estimate is None else f"{p.estimate:,.3g}",
                _range(p),
                "" if p.doublings == 0 else "extrapolated" if not p.far else "extrapolated beyond one doubling",
            )
            for family, p in result.predictions
        ]
        parts.append(rows_table(("model parameters", f"predicted {unit}", "95 % prediction", ""), rows))
        parts += [*(Text(remark) for remark in result.remarks), Text("")]
    return Group(*parts)


def _interval(c: Coefficient) -> str:
    low = f"{c.low:+.2f}" if isfinite(c.low) else "−∞"
    high = f"{c.high:+.2f}" if isfinite(c.high) else "∞"
    return f"{low} to {high}" if c.estimate is None else f"{c.estimate:+.2f} ({low} to {high})"


def _range(p: Prediction) -> str:
    if p.low <= 0 and not isfinite(p.high):
        return "unbounded"
    low = f"{p.low:,.3g}" if p.low > 0 else "0"
    return f"{low} to {p.high:,.3g}" if isfinite(p.high) else f"≥ {low}"
