"""The first screen of a report: the question in words, one sentence of answer, one figure and three numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from capacity.spec.methods import in_order
from capacity_analysis.bits.frontier import FrontierPoint
from capacity_analysis.data.absent import Absent
from capacity_analysis.statistics.estimate import labels
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_reports.blocks import Figure, Section, Text
from capacity_reports.decided import (
    AskedDifference,
    AskedRatio,
    gains_of,
    seeds_of,
)
from capacity_reports.figures import joined
from capacity_reports.main_contrast import MainContrast
from capacity_reports.sections.accuracy import accuracy_figure
from capacity_reports.sections.accuracy_chart import Chart
from capacity_reports.statements import (
    difference_sentence,
    on_model,
    parameters,
    points,
    ratio_sentence,
    size_of,
)
from capacity_reports.undecided import undecided
from capacity_reports.views import Analysis

# The methods that a question names where a study has more.
_ASKED = ("sft", "rft", "grpo")


@dataclass(frozen=True)
class Number:
    """A number as people read it, with its meaning."""

    value: str
    meaning: str


@dataclass(frozen=True)
class Front:
    """The first screen.

    Attributes:
        question: what was asked, in words.
        answer: one sentence.
        figure: the figure that shows it; None if there is nothing to draw.
        numbers: at most three.
        intervals: what the intervals of answer and numbers are for.
        judged: what was done about several statements; "" if there is one or none.
        undecided: one line about what is not decided and what would decide it; None if all is.
    """

    question: str
    answer: str
    figure: Figure | None = None
    numbers: tuple[Number, ...] = ()
    intervals: str = ""
    judged: str = ""
    undecided: str | None = None


def front(analysis: Analysis, charts: Sequence[Chart], main: MainContrast) -> Front:
    """The first screen of one source.

    Args:
        analysis: what is known of the source.
        charts: its charts over trained parameters.
        main: its main contrast, the only one that the answer speaks of.
    """
    difference = next(iter(main.decided_differences), None)
    chart = next(iter(in_interest(charts, main)), None)
    numbers: list[Number] = []
    intervals: list[str] = []
    if chart is not None:
        best = max(chart.places, key=lambda p: (p.accuracy, -p.size))
        numbers.append(_best(chart, best))
        intervals.append(labels([best.estimate]))
        smallest = _smallest(chart)
        if smallest is not None:
            numbers.append(_threshold(chart, smallest))
            intervals.append(smallest.interval)
    if difference is not None:
        numbers.append(_difference_number(difference))
        intervals.append(labels([difference.difference.estimate]))
    answer, of_answer = _answer(analysis, main)
    numbers = [*numbers[:3], *_counts(analysis)][:3]
    told = dict.fromkeys(part for text in (of_answer, *intervals) for part in text.split("; ") if part)
    told.pop("no intervals", None)
    figure = None if chart is None else accuracy_figure("front", chart)
    return Front(
        analysis.source.question or question(analysis, charts),
        answer,
        figure and replace(figure, height=3.7),
        tuple(numbers),
        "; ".join(told),
        main.judged,
        undecided(analysis, main),
    )


def question(analysis: Analysis, charts: Sequence[Chart]) -> str:
    """The question that the runs of a source put, in words, where no study file says it."""
    source = analysis.source
    specs = [run.spec for run in source.trained] or [s for s in source.lost if s.training is not None]
    methods = list(dict.fromkeys(method for chart in charts for method in chart.methods))
    methods = in_order(set(methods or [spec.method for spec in specs]))
    if len(methods) > len(_ASKED):
        methods = [method for method in methods if method in _ASKED] or methods
    models = list(dict.fromkeys(chart.model for chart in charts if chart.model)) or list(
        dict.fromkeys(spec.model for spec in specs)
    )
    where = f" on {joined(models[:3]) if len(models) <= 3 else f'{len(models)} models'}" if models else ""
    sizes = {p.known["trained_parameters"] for chart in charts for p in chart.places}
    if not methods:
        return f"What can the untrained model do{where}?"
    if len(sizes) == 1:
        (size,) = sizes
        with_size = f"{int(size):,} trained parameter{'' if size == 1 else 's'}"
        if len(methods) == 1:
            return f"What does {methods[0]} gain with {with_size}{where}?"
        return f"Which of {joined(methods)} gains most with {with_size}{where}?"
    if len(methods) == 1:
        return f"How small an update does {methods[0]} need{where}?"
    return f"How small an update do {joined(methods)} need{where}?"


def in_interest(charts: Sequence[Chart], main: MainContrast) -> list[Chart]:
    """The charts, the one that the answer is about first; without an answer the one with most configurations."""
    ratio = next(iter((*main.decided_ratios, *main.decided_alone)), None)
    difference = next(iter(main.decided_differences), None)
    model: str | None = None
    label: str | None = None
    if ratio is not None:
        model, label = ratio.ratio.model or "", ratio.view.label
    elif difference is not None and difference.comparison.cells:
        model = difference.comparison.cells[0].cell.model or ""

    def told(chart: Chart) -> bool:
        return model in (None, chart.model) and label in (None, chart.label)

    return sorted(charts, key=lambda chart: (not told(chart), -len(chart.places)))


def _answer(analysis: Analysis, main: MainContrast) -> tuple[str, str]:
    """One sentence, and what its interval is for."""
    said = _of_contrast(main)
    if said is not None:
        return said
    if gains := gains_of(analysis):
        _, cell, gain = gains[0]
        tail = f" No difference between {main.name} is decided." if main.methods is not None else ""
        what = f"{cell.name} with {parameters(cell.cell.trained_parameters)}"
        runs = " in its one run" if gain.seeds == 1 else ""
        line = f"{on_model(cell.cell.model, begins=True)}{what} gains {points(gain)} over the untrained model{runs}."
        return f"{line}{tail}", labels([gain])
    source = analysis.source
    if not isinstance(source.points, Absent) and (source.points.frame["trained_parameters"] > 0).any():
        if seeds_of(analysis) == {1}:
            return "These runs have one seed, which allows no claim about methods.", ""
        return f"No difference between {main.name} is decided.", ""
    return "There is no answer yet: no trained run is complete.", ""


def _of_contrast(main: MainContrast) -> tuple[str, str] | None:
    """What is decided of the main contrast, or what its first ratio shows by itself; None if neither is anything."""
    for ratio in main.decided_ratios:
        return ratio_sentence(ratio), _interval_of(ratio)
    for difference in main.decided_differences:
        return difference_sentence(difference), labels([difference.difference.estimate])
    for ratio in main.decided_alone:
        others = len(main.ratios) - 1
        together = f"the other {others} ratios" if others > 1 else "the other ratio"
        doubt = f"By itself this interval excludes 1; judged together with {together} it does not."
        return f"{ratio_sentence(ratio)} {doubt}", _interval_of(ratio)
    return None


def _interval_of(asked: AskedRatio) -> str:
    """What the interval of a ratio is for."""
    return next(t.interval for t in asked.study.thresholds if t.model == asked.ratio.model)


def _difference_number(found: AskedDifference) -> Number:
    d = found.difference
    better, worse = (d.first, d.second) if d.estimate.sign > 0 else (d.second, d.first)
    value, _, interval = points(d.estimate).partition(" points")
    where = on_model(found.comparison.cells[0].cell.model)
    return Number(
        f"+{value} points",
        f"accuracy of {better} over {worse} with {parameters(size_of(found.comparison))}{where}{interval}",
    )


def _best(chart: Chart, best: FrontierPoint) -> Number:
    ends = "" if best.low is None or best.high is None else f" ({100 * best.low:.1f} to {100 * best.high:.1f})"
    base = next((level for level in chart.levels if level.name.startswith("base")), None)
    over = "" if base is None else f"; the untrained model has {100 * base.accuracy:.1f} %"
    size = parameters(int(best.known["trained_parameters"]))
    return Number(
        f"{100 * best.accuracy:.1f} %",
        f"highest accuracy of {_updates(chart)}{on_model(chart.model)}: {best.known['method']} with {size}{ends}{over}",
    )


def _updates(chart: Chart) -> str:
    """How many updates the highest was picked from: the more there are, the more it flatters."""
    return f"{len(chart.places):,} update{'' if len(chart.places) == 1 else 's'}"


def _smallest(chart: Chart) -> CurveThreshold | None:
    """The smallest threshold size of the chart's curves."""
    found = [t for t in chart.thresholds if t.threshold.estimate is not None]
    return min(found, key=lambda t: t.threshold.estimate or 0, default=None)


def _threshold(chart: Chart, found: CurveThreshold) -> Number:
    t = found.threshold
    ends = f" ({t.low or 0:,.0f} to {'∞' if t.high is None else f'{t.high:,.0f}'})"
    ends = "" if t.low is None and t.high is None else ends
    assert chart.evidence is not None
    target = f"{100 * chart.evidence.target.accuracy:.1f} %"
    size = round(t.estimate or 0)
    return Number(
        f"{size:,} parameter{'' if size == 1 else 's'}",
        f"smallest update that reaches {target}{on_model(chart.model)}: {found.curve}{ends}",
    )


def _counts(analysis: Analysis) -> list[Number]:
    """How much was measured: numbers for where the data give no better ones."""
    source = analysis.source
    found = [Number(f"{len(source.failures):,} failed", "runs gave no result; the diagnoses stand below")]
    found = found if source.failures else []
    if source.missing:
        found.append(Number(f"{len(source.missing):,} missing", "planned runs are not made yet"))
    if isinstance(source.points, Absent):
        return found
    frame = source.points.frame
    trained = frame[(frame["trained_parameters"] > 0) & (frame["split"] != "validation").fillna(True)]
    seeds, runs = trained["seed"].nunique(), len(trained)
    with_seeds = f", with {seeds} seed{'' if seeds == 1 else 's'}" if seeds else ""
    found.insert(0, Number(f"{runs:,} run{'' if runs == 1 else 's'}", f"of trained updates are complete{with_seeds}"))
    items = trained["n_items"].dropna().unique()
    if len(items) == 1:
        found.append(Number(f"{int(items[0]):,} items", "were asked of every run"))
    return found


def front_of_differences(names: Sequence[str], section: Section) -> Front:
    """The first screen of a report that compares sources.

    Args:
        names: of the sources; each is compared with the first.
        section: the differences of the second to the first.
    """
    texts = [line for block in section.blocks if isinstance(block, Text) and block.strong for line in block.lines]
    figure = next((block for block in section.blocks if isinstance(block, Figure)), None)
    answer = texts[0] if texts else f"They cannot be compared: {section.absent}."
    own = figure and replace(figure, name="front-" + figure.name)
    do = "does" if len(names) == 2 else "do"
    return Front(f"How {do} {joined(names[1:])} differ from {names[0]}?", answer, own)
