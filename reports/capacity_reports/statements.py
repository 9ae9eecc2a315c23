"""Ratios of sizes and differences of accuracies in sentences, as a page opens with them."""

from capacity_analysis.compare.comparison import Comparison
from capacity_analysis.statistics.estimate import Estimate
from capacity_analysis.thresholds.ratios import Ratio
from capacity_analysis.words import times
from capacity_reports.decided import AskedDifference, AskedRatio, decided_differences, decided_ratios
from capacity_reports.main_contrast import MainContrast
from capacity_reports.views import Analysis


def main_sentences(main: MainContrast) -> tuple[str, ...]:
    """A sentence for each decided statement about the main contrast."""
    return (*map(ratio_sentence, main.decided_ratios), *map(difference_sentence, main.decided_differences))


def exploratory_sentences(analysis: Analysis, main: MainContrast) -> tuple[str, ...]:
    """A sentence for each statement about other pairs whose interval, by itself, leaves out no difference."""
    ratios = [r for r in decided_ratios(analysis) if tuple(sorted(r.methods)) != main.methods]
    differences = [d for d in decided_differences(analysis) if tuple(sorted(d.methods)) != main.methods]
    return (*map(ratio_sentence, ratios), *map(difference_sentence, differences))


def ratio_sentence(found: AskedRatio) -> str:
    """ "On M, sft needs 2.8 times (1.5 to 6.3) as many trained parameters as grpo to reach 80 % of …"."""
    r, q = found.ratio, found.study.question
    asked = f"{100 * q.gain:g} % of the possible gain" if q.target is None else f"{100 * q.target:g} % accuracy"
    what = "trained parameters" if found.study.unit == "parameters" else found.study.unit
    label = f" ({found.view.label})" if found.view.label else ""
    return (
        f"{on_model(r.model, begins=True)}{r.numerator} needs {_many(r)} as many {what} as {r.denominator} to reach "
        f"{asked}{label}."
    )


def _many(r: Ratio) -> str:
    """ "2.8 times (1.5 to 6.3)", "at least 5 times"."""
    low, high = (None if end is None else times(end).rstrip("×") for end in (r.low, r.high))
    if r.estimate is None or low is None or high is None:
        if r.low is not None and r.low > 1:
            return f"at least {low} times"
        return f"at most {high} times"
    return f"{times(r.estimate).rstrip('×')} times ({low} to {high})"


def difference_sentence(found: AskedDifference) -> str:
    """ "On M, grpo scores 5.2 points (1.1 to 9.3) higher than sft with 13 trained parameters"."""
    d = found.difference
    better, worse = (d.first, d.second) if d.estimate.sign > 0 else (d.second, d.first)
    cell = found.comparison.cells[0].cell
    return (
        f"{on_model(cell.model, begins=True)}{better} scores {points(d.estimate)} higher than {worse} with "
        f"{parameters(size_of(found.comparison))}."
    )


def points(estimate: Estimate) -> str:
    """ "12.3 points (10.1 to 14.5)" of a positive difference."""
    text = f"{100 * abs(estimate.value):.1f} points"
    if estimate.low is None or estimate.high is None:
        return text
    ends = sorted((abs(estimate.low), abs(estimate.high)))
    return f"{text} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def parameters(size: int) -> str:
    """ "13 trained parameters"."""
    return f"{size:,} trained parameter{'' if size == 1 else 's'}"


def size_of(comparison: Comparison) -> int:
    """The trained parameters of a comparison, which has cells."""
    return comparison.cells[0].cell.trained_parameters


def on_model(model: str | None, *, begins: bool = False) -> str:
    """Where something was found, at the beginning of a sentence or inside it; "" if no source tells."""
    return "" if not model else f"On {model}, " if begins else f" on {model}"
