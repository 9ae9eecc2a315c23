"""What `capacity threshold` prints: targets, thresholds, ratios, null calibration, limits, checklist."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from capacity.library.thresholds import Thresholds
from capacity_analysis.checklist import Answer
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_cli.views.scaling import scaling_view
from capacity_reports.tables import rows_table


def threshold_view(found: Thresholds) -> RenderableType:
    """Everything, in its order."""
    scaling = [] if found.scaling is None else [scaling_view(found.scaling, found.study.unit)]
    return Group(_view(found.study), *scaling, _lines(found.checklist))


def _view(study: ThresholdStudy) -> RenderableType:
    """Target, table, ratios, null calibration, and what is not supported."""
    parts: list[RenderableType] = []
    for evidence in study.evidence:
        target, model = evidence.target, evidence.design.model
        head = f"{model}: " if model else ""
        made = (
            f" = base {100 * target.base:.1f} % + {target.gain:g} × gain up to the ceiling "
            f"{100 * target.ceiling:.1f} % ({target.ceiling_from})"
            if target.base is not None and target.ceiling is not None
            else ""
        )
        parts.append(Text(f"{head}target accuracy {100 * target.accuracy:.1f} %{made}"))
    headings = ("model", "curve", "estimator", "answer", f"threshold, {study.unit} (95 %)", "censored",
                "first crossing",
                "stays above", "fit p", "not reached")  # fmt: skip
    parts += [rows_table(headings, [_row(found) for found in study.thresholds]), Text("")]
    parts += [Text(line, style="bold") for line in study.sentences()]
    parts += [Text(f"Intervals: {line}.") for line in dict.fromkeys(t.interval for t in study.thresholds)]
    for null in study.null:
        where = f"{null.model}, " if null.model else ""
        parts.append(
            Text(
                f"Null calibration ({where}{null.numerator} : {null.denominator}): if both were the same, of "
                f"{null.simulations} studies of this design {100 * null.naive_above_10:.1f} % would show a naive ratio "
                f"beyond 10× and {100 * null.naive_above_100:.1f} % beyond 100×; the interval would exclude 1 in "
                f"{100 * null.excludes_1:.1f} % and claim 10× or more in {100 * null.claims_10:.1f} %."
            )
        )
    if study.unsupported:
        parts.append(Text("Not supported by these data:"))
        parts += [Text(f"- {line}") for line in study.unsupported]
    return Group(*parts, Text(""))


def _row(found: CurveThreshold) -> tuple[str, ...]:
    t = found.threshold
    return (
        found.model or "",
        found.curve,
        found.estimator,
        "yes" if found.answer else "",
        _sizes(found),
        t.censored,
        "never" if found.first_crossing is None else f"{found.first_crossing:,.0f}",
        "never" if found.stays_above is None else f"{found.stays_above:,.0f}",
        "" if found.fit_p is None else f"{found.fit_p:.2g}",
        "" if t.fraction_not_reached is None else f"{100 * t.fraction_not_reached:.1f} %",
    )


def _sizes(found: CurveThreshold) -> str:
    """ "120 (90–160)", "> 1,000,000 (≥ 5,000)", "< 1 (≤ 10)"."""
    t = found.threshold
    if t.censored == "right":
        return f"> {_size(found.sizes[-1])}" + (f" (≥ {_size(t.low)})" if t.low is not None else "")
    if t.censored == "left":
        return f"< {_size(found.sizes[0])}" + (f" (≤ {_size(t.high)})" if t.high is not None else "")
    assert t.estimate is not None
    if t.low is None and t.high is None:
        return _size(t.estimate)
    low = f"< {_size(found.sizes[0])}" if t.low is None else _size(t.low)
    high = f"> {_size(found.sizes[-1])}" if t.high is None else _size(t.high)
    return f"{_size(t.estimate)} ({low}–{high})"


def _size(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 or value == int(value) else f"{value:,.2g}"


def _lines(answers: Sequence[Answer]) -> RenderableType:
    rows = [(str(a.number), a.question, a.answer, a.reason) for a in answers]
    return rows_table(("", "checklist", "", ""), rows)
