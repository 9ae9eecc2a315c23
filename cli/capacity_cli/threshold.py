"""`capacity threshold`: the smallest update that reaches a target, and how many times more one method needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from capacity.errors import SpecError
from capacity_reports.tables import rows_table

if TYPE_CHECKING:
    from capacity_analysis.checklist import Answer
    from capacity_analysis.thresholds.answers import ThresholdStudy
    from capacity_analysis.thresholds.question import Question
    from capacity_analysis.thresholds.result import CurveThreshold


def threshold_command(
    source: str,
    question: "Question",
    conditions: Sequence[str],
    *,
    unit: str,
    split: str | None,
    rate: str | None,
    seed: int,
    null: int,
    scaling: bool,
    allow_mixed: bool,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    from capacity.runs.study import Study
    from capacity_analysis.checklist import checklist
    from capacity_analysis.data.select import Selection
    from capacity_analysis.data.table import read_points
    from capacity_analysis.data.where import where
    from capacity_analysis.scaling.curves import scaling_report
    from capacity_analysis.scaling.curves import to_json as scaling_json
    from capacity_analysis.thresholds.answers import facts, study_thresholds, thresholds_on_models
    from capacity_cli.published import is_published, show_published
    from capacity_cli.scaling import scaling_view

    if unit not in ("parameters", "bytes"):
        raise SpecError(f"--unit {unit!r}: choose parameters or bytes")
    points = read_points(source, allow_mixed=allow_mixed)
    if is_published(source) and question.target is None and not conditions:
        show_published(points, source.removeprefix("reference:"), question, as_json=as_json)
        return
    points = where(points, conditions)
    selection = Selection(split, rates_of(rate), "bytes" if unit == "bytes" else "parameters")
    study = study_thresholds(points, selection, question, seed=seed, null=null)
    folder = Study(Path(source)) if Path(source).is_dir() else None
    answers = checklist(points, folder, facts(study))
    scaled = scaling_report(thresholds_on_models(study)) if scaling else ()
    if as_json:
        result = study.to_json() | {"checklist": [asdict(a) for a in answers]}
        if scaling:
            result["scaling"] = scaling_json(scaled)
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    console = Console()
    console = console if console.is_terminal else Console(width=1000)
    parts: list[RenderableType] = [
        _view(study),
        *([scaling_view(scaled, study.unit)] if scaling else []),
        _lines(answers),
    ]
    console.print(Group(*parts), highlight=False, soft_wrap=not console.is_terminal)


def question_of(
    target: float | None,
    gain: float | None,
    ceiling: float | None,
    lower: float | None,
    upper: float | None,
    items: str,
    replicates: int,
) -> "Question":
    """The question that the options ask.

    Raises:
        SpecError: both a target and a gain, or a word that is not a choice.
    """
    from capacity_analysis.thresholds.question import Question

    if target is not None and (gain is not None or ceiling is not None):
        raise SpecError("give --target, or --gain (with --ceiling), not both")
    if items not in ("these", "population"):
        raise SpecError(f"--items {items!r}: choose these or population")
    return Question(
        target, 0.8 if gain is None else gain, ceiling, lower, upper,
        "population" if items == "population" else "these", replicates,
    )  # fmt: skip


def rates_of(text: str | None) -> dict[str, float] | None:
    """Reads `0.001` (for all) or `sft=0.001,grpo=0.003`.

    Raises:
        SpecError: not a positive number.
    """
    if text is None:
        return None
    found = {}
    for part in text.split(","):
        method, _, value = part.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not rate > 0:
            raise SpecError(f"--rate {text!r}: {value!r} is not a positive number; write 0.001 or sft=0.001,grpo=0.003")
        found[method.strip()] = rate
    return found


def _view(study: "ThresholdStudy") -> RenderableType:
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


def _row(found: "CurveThreshold") -> tuple[str, ...]:
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


def _sizes(found: "CurveThreshold") -> str:
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


def _lines(answers: "Sequence[Answer]") -> RenderableType:
    rows = [(str(a.number), a.question, a.answer, a.reason) for a in answers]
    return rows_table(("", "checklist", "", ""), rows)
