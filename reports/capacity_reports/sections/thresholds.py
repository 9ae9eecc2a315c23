"""Thresholds and their ratios, and what the same design would say of two equal methods."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from capacity_analysis.data.absent import Absent
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.null_calibration import NullCalibration
from capacity_analysis.thresholds.ratios import WORDS, Ratio, in_words
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import FAINT, dashes, joined, legend, line_colour, log_axis, numbers
from capacity_reports.views import Analysis, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = (
    Column("model", "model"),
    Column("curve", "curve"),
    Column("method", "method"),
    Column("estimator", "estimator"),
    Column("estimate", "threshold", "count", ends=("low", "high")),
    Column("low", "95 % low", "count", "0"),
    Column("high", "95 % high", "count", "∞"),
    Column("censored", "censored"),
    Column("bound", "in words"),
    Column("first_crossing", "first crossing", "count", "never"),
    Column("stays_above", "stays above", "count", "never"),
    Column("fit_p", "fit, p", "p", "not tested"),
    Column("fraction_not_reached", "not reached, %", "percent"),
    Column("seeds", "seeds", "count"),
    Column("collapsed", "collapsed seeds", "text", "not known"),
)
_RATIOS = (
    Column("model", "model"),
    Column("numerator", "curve"),
    Column("denominator", "over"),
    Column("estimator", "estimator"),
    Column("estimate", "ratio", "ratio", ends=("low", "high")),
    Column("low", "95 % low", "ratio", "0"),
    Column("high", "95 % high", "ratio", "∞"),
    Column("censored", "censored"),
    Column("parallel_p", "parallel, p", "p", "not tested"),
    Column("other_estimator", "other estimator", "text", "none"),
    Column("other_estimate", "its ratio", "ratio", ends=("other_low", "other_high")),
    Column("other_low", "its 95 % low", "ratio", "0"),
    Column("other_high", "its 95 % high", "ratio", "∞"),
)
_AGAINST = (
    Column("numerator", "curve"),
    Column("denominator", "over"),
    Column("target", "target, %", "percent"),
    Column("estimate", "ratio", "ratio", ends=("low", "high")),
    Column("low", "95 % low", "ratio", "0"),
    Column("high", "95 % high", "ratio", "∞"),
)
_NULL = (
    Column("model", "model"),
    Column("numerator", "curve"),
    Column("denominator", "over"),
    Column("naive_above_10", "naive ratio beyond 10×, %", "percent"),
    Column("naive_above_100", "beyond 100×, %", "percent"),
    Column("excludes_1", "interval excludes 1, %", "percent"),
    Column("claims_10", "interval claims 10×, %", "percent"),
    Column("one_sided", "interval open, %", "percent"),
    Column("simulations", "simulations", "count"),
)

_NULL_INTRO = Text(
    (
        "If both methods of a pair were the same, how often would a study with these sizes, items and seeds show a "
        "large ratio all the same? The naive way divides the sizes at which the means first pass the target; the "
        "interval is the one above.",
    )
)


def threshold_section(analysis: Analysis) -> Section:
    """The section of the thresholds and ratios of every view."""
    blocks: list[Block] = []
    for view in analysis.views:
        blocks += (
            [_absent(view, view.thresholds)]
            if isinstance(view.thresholds, Absent)
            else threshold_blocks(view.thresholds, view.label)
        )
    if not analysis.thresholds:
        reasons = [v.thresholds.reason for v in analysis.views if isinstance(v.thresholds, Absent)]
        points = analysis.source.points
        why = points.reason if isinstance(points, Absent) else "; ".join(reasons) or "no trained runs are complete"
        return Section("thresholds", "Thresholds and ratios", (), why)
    return Section("thresholds", "Thresholds and ratios", tuple(blocks))


def _absent(view: View, absent: Absent) -> Text:
    return Text((f"{view.label or 'Thresholds'}: not available, {absent.reason}.",))


def threshold_blocks(study: ThresholdStudy, label: str = "") -> list[Block]:
    """Targets, thresholds by both estimators, headline ratios, and the figures of ratios against the target.

    Args:
        study: the thresholds of rows that may be compared.
        label: what tells these rows from others on a page.
    """
    where = f", {label}" if label else ""
    intervals = joined(list(dict.fromkeys(t.interval for t in study.thresholds)))
    answers, others = ([t for t in study.thresholds if t.answer is believed] for believed in (True, False))
    title = f"Smallest update that reaches the target, {study.unit}{where}"
    blocks: list[Block] = [
        Text((*([f"{label}."] if label else []), *_targets(study))),
        Table(slug("thresholds", label), title, _CURVES, tuple(map(_threshold, answers)), f"Intervals: {intervals}."),
    ]
    if others:
        title = f"The same by the other estimator{where}"
        blocks.append(Table(slug("thresholds-other", label), title, _CURVES, tuple(map(_threshold, others))))
    if study.ratios:
        rows = tuple(_ratio(r, study.other(r)) for r in study.headlines)
        note = (
            "The ratio is the headline, by the estimator to believe; the other estimator stands beside it. "
            f"Intervals: {intervals}."
        )
        blocks.append(Table(slug("ratios", label), f"Ratios of thresholds at the target{where}", _RATIOS, rows, note))
    for evidence in study.evidence:
        model = evidence.design.model or ""
        own = [r for r in study.ratios if (r.model or "") == model and r.against_target]
        if own:
            headlines = [r for r in study.headlines if (r.model or "") == model]
            blocks.append(_against(label, model, own, headlines, evidence.target.accuracy))
    return blocks


def _targets(study: ThresholdStudy) -> Iterator[str]:
    for e in study.evidence:
        model = f"{e.design.model}: " if e.design.model else ""
        made = ""
        if e.target.base is not None and e.target.ceiling is not None:
            made = (
                f", which is the base {100 * e.target.base:.1f} % + {e.target.gain:g} × the gain up to the ceiling "
                f"{100 * e.target.ceiling:.1f} % ({e.target.ceiling_from})"
            )
        yield f"{model}target accuracy {100 * e.target.accuracy:.1f} %{made}."


def _threshold(found: CurveThreshold) -> tuple[Cell, ...]:
    t = found.threshold
    return (
        found.model,
        found.curve,
        found.method,
        found.estimator,
        t.estimate,
        t.low,
        t.high,
        t.censored,
        bound(found),
        found.first_crossing,
        found.stays_above,
        found.fit_p,
        t.fraction_not_reached,
        found.seeds,
        None if found.collapsed is None else str(found.collapsed),
    )


def bound(found: CurveThreshold) -> str:
    """What is known of a threshold, in words."""
    t = found.threshold
    if t.censored == "right":
        return f"above {found.sizes[-1]:,.0f}, not reached in the tested range"
    if t.censored == "left":
        return f"at most {found.sizes[0]:,.0f}, reached at the smallest size"
    if t.low is None and t.high is None:
        return "no interval"
    return "between tested sizes"


def _ratio(ratio: Ratio, other: Ratio | None) -> tuple[Cell, ...]:
    parallel = next((r.parallel_p for r in (ratio, other) if r is not None and r.parallel_p is not None), None)
    beside = (None,) * 4 if other is None else (other.estimator, other.estimate, other.low, other.high)
    return (
        ratio.model,
        ratio.numerator,
        ratio.denominator,
        ratio.estimator,
        ratio.estimate,
        ratio.low,
        ratio.high,
        ratio.censored,
        parallel,
        *beside,
    )


def _against(label: str, model: str, ratios: Sequence[Ratio], headlines: Sequence[Ratio], target: float) -> Figure:
    """The figure of the ratio at each target by the Hill curves, one line a pair, with the headlines as marks."""
    rows = tuple(
        (r.numerator, r.denominator, a.target, a.estimate, a.low, a.high) for r in ratios for a in r.against_target
    )
    known = [r for r in rows if r[3] is not None]
    marked = [r for r in headlines if r.estimate is not None]

    def draw(axes: "Axes") -> None:
        shown = [float(r[3] or 1) for r in known] + [r.estimate or 1 for r in marked]
        floor, roof = min([0.1, *(0.5 * x for x in shown)]), max([1000.0, *(2 * x for x in shown)])
        for place, r in enumerate(ratios):
            colour = line_colour(place)
            drawn = [a for a in r.against_target if a.estimate is not None]
            x = [100 * a.target for a in drawn]
            name = f"{r.numerator} : {r.denominator}"
            axes.plot(x, numbers(a.estimate for a in drawn), color=colour, marker=".", ls=dashes(place), label=name)
            low = [max(a.low or floor, floor) for a in drawn]
            high = [min(a.high or roof, roof) for a in drawn]
            axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        pairs = dict.fromkeys((r.numerator, r.denominator) for r in (*ratios, *marked))
        places = {pair: place for place, pair in enumerate(pairs)}
        for r in marked:
            colour = line_colour(places[r.numerator, r.denominator])
            ends = [max(r.low or floor, floor), min(r.high or roof, roof)]
            axes.plot([100 * target] * 2, ends, color=colour, lw=1.2)
            axes.plot([100 * target], [r.estimate or 1], ls="", marker="D", ms=7, mfc="none", mec=colour, mew=1.4)
        for value in (1, 10):
            axes.axhline(value, color=FAINT, ls="--", lw=1)
        axes.set_ylim(floor, roof)
        axes.set_xlabel("target accuracy, %")
        log_axis(axes, "y", "ratio of thresholds")
        legend(axes, 2)

    where = ", ".join(part for part in (model, label) if part)
    unknown = len(rows) - len(known)
    words = "; ".join(
        f"{n} : {d} {e:.3g} at {100 * t:.1f} %" for n, d, t, e, _, _ in known if e is not None and t is not None
    )
    said = "; ".join(f"{r.numerator} : {r.denominator} {in_words(r)} by {WORDS[r.estimator]}" for r in marked)
    headline = f"Diamonds: the headline at {100 * target:.1f} %, {said}. " if said else ""
    return Figure(
        slug("ratio-against-target", label, model),
        f"Ratio against target by Hill curves{f', {where}' if where else ''}",
        f"{headline}Lines: the ratio of threshold sizes by Hill curves at shares .1 to .9 of the gain. Their 95 % "
        "bands are for what the intervals of the thresholds are for; dashed lines are 1× and 10×. Where the monotone "
        "estimator is the headline, a Hill curve does not fit, and its line may lie elsewhere. Where the curves are "
        f"not parallel no single ratio exists. {unknown} ratios are censored and not drawn.",
        f"Ratio of thresholds against the target accuracy by Hill curves{f' on {where}' if where else ''}: "
        f"{words or 'all are censored'}.",
        Table(slug("ratio-against-target", label, model), "Ratio at each target by Hill curves", _AGAINST, rows),
        draw,
    )


def null_section(analysis: Analysis) -> Section:
    """The section of the null calibration of every pair."""
    found = [(view, study) for view, study in analysis.thresholds if study.null]
    if not found:
        reason = "it needs two methods with several sizes and a known spread"
        if not analysis.thresholds:
            reason = "it needs thresholds with intervals"
        elif not analysis.options.null:
            reason = "it was not asked for: capacity report --null 400 computes it"
        return Section("null-calibration", "Null calibration", (), reason)
    blocks = [_null(view, study) for view, study in found]
    return Section("null-calibration", "Null calibration", (_NULL_INTRO, *blocks))


def null_blocks(study: ThresholdStudy) -> list[Block]:
    """What is asked of equal methods, and the table of the answers. There is none without a null calibration."""
    return [_NULL_INTRO, _null_table(study.null, "")] if study.null else []


def _null_table(found: Sequence[NullCalibration], label: str) -> Table:
    rows = tuple(tuple(getattr(n, column.key) for column in _NULL) for n in found)
    note = (
        f"{found[0].simulations:,} simulated studies a pair; Monte-Carlo error of a share of 5 %: "
        f"{100 * found[0].standard_error:.1f} points."
    )
    if any(pair.held_fixed for pair in found):
        note += " The one draw that all runs share is held fixed: it moves two equal curves alike."
    title = f"Shares of simulated studies{f', {label}' if label else ''}"
    return Table(slug("null-calibration", label), title, _NULL, rows, note)


def _null(view: View, study: ThresholdStudy) -> Figure:
    found, data = study.null, _null_table(study.null, view.label)
    names = [" ".join(p for p in (n.model or "", f"{n.numerator} : {n.denominator}") if p) for n in found]
    shares = (
        ("naive ratio beyond 10×", "naive_above_10", "#d55e00", "s"),
        ("interval excludes 1", "excludes_1", "#0072b2", "o"),
        ("interval claims 10×", "claims_10", "#008060", "^"),
    )

    def draw(axes: "Axes") -> None:
        for label, key, colour, marker in shares:
            axes.plot(
                [100 * getattr(n, key) for n in found],
                range(len(found)),
                ls="",
                marker=marker,
                color=colour,
                label=label,
            )
        axes.axvline(2.5, color=FAINT, ls=":", lw=1)
        axes.axvline(5, color=FAINT, ls="--", lw=1)
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(left=-0.5)
        axes.set_xlabel("simulated studies of two equal methods, %")
        axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.35 if len(found) < 4 else -0.2), ncol=2, frameon=False)

    words = "; ".join(
        f"{name}: naive beyond 10× in {100 * n.naive_above_10:.1f} %, interval excludes 1 in {100 * n.excludes_1:.1f} %"
        for name, n in zip(names, found, strict=True)
    )
    return Figure(
        data.name,
        f"Two equal methods{f', {view.label}' if view.label else ''}",
        f"{data.note} Dotted line 2.5 %, dashed 5 %.",
        f"Null calibration: {words}.",
        data,
        draw,
        height=max(2.4, 1.2 + 0.3 * len(found)),
    )
