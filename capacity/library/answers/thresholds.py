"""Which update reaches the target, in a few lines: one pair of methods a model, and how many pairs are decided."""

from capacity.library.answers import answer, leading, named, several
from capacity_analysis.thresholds.answers import ThresholdStudy
from capacity_analysis.thresholds.ratios import Ratio, in_words
from capacity_analysis.thresholds.result import CurveThreshold
from capacity_reports.blocks import Block, Column, Table
from capacity_reports.decided import decided_together, decides
from capacity_reports.figures import joined

_COLUMNS = (
    Column("model", "model"),
    Column("curve", "curve"),
    Column("estimate", "threshold", "count", ends=("low", "high")),
    Column("low", "95 % low", "count", "0"),
    Column("high", "95 % high", "count", "∞"),
    Column("first_crossing", "first size that reaches it", "count", "never"),
    Column("seeds", "seeds", "count"),
)
_PAIRS = 3  # lines of pairs at most


def threshold_answer(study: ThresholdStudy) -> tuple[Block, ...]:
    """One pair of each model in a line, how many pairs are decided, and a table of the thresholds."""
    pairs, lines = study.headlines, [_asked(study)]
    first = leading(pairs)
    lines += several([_line(study, ratio) for ratio in first], _PAIRS, "models")
    if pairs:
        count = sum(decides(ratio) and not study.of_one_seed(ratio) for ratio in pairs)
        together = sum(decided_together([(study, ratio) for ratio in first]))
        among = f" Of these {len(first)} pairs, judged together: {together}." if len(first) > 1 else ""
        lines.append(f"Pairs whose interval excludes 1×: {count} of {len(pairs)}.{among}")
    else:
        lines.append("There is no pair of curves to compare.")
    return answer(lines, _table(study))


def _asked(study: ThresholdStudy) -> str:
    question = study.question
    target = f"{100 * question.gain:g} % of the gain" if question.target is None else f"{100 * question.target:g} %"
    return f"Asked: the smallest update that reaches {target}, in {study.unit}."


def _line(study: ThresholdStudy, ratio: Ratio) -> str:
    where, one, other = named(ratio.model, ratio.numerator, ratio.denominator)
    words, unit = in_words(ratio), study.unit
    if words is None:
        return f"{where}nothing is known of {one} : {other}."
    if study.of_one_seed(ratio):
        return f"{where}one seed, no claim about methods; in these runs {one} needs {words} the {unit} of {other}."
    if not decides(ratio):
        return f"{where}{one} : {other} is not decided, {words.replace(' without an interval', ' (no interval)')}."
    return f"{where}{one} needs {words} the {unit} of {other}."


def _table(study: ThresholdStudy) -> Table:
    rows = tuple(map(_row, (found for found in study.thresholds if found.answer)))
    intervals = joined(list(dict.fromkeys(found.interval for found in study.thresholds)))
    title = f"Smallest update that reaches the target, {study.unit}"
    return Table("thresholds", title, _COLUMNS, rows, f"Intervals: {intervals}.")


def _row(found: CurveThreshold) -> tuple[str | float | int | None, ...]:
    t = found.threshold
    return found.model, found.curve, t.estimate, t.low, t.high, found.first_crossing, found.seeds
