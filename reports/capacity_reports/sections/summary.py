"""Summary: what was asked, what the data allow to say, and the checklist."""

from collections.abc import Sequence

from capacity.spec.methods import METHODS
from capacity_analysis.checklist import Answer, checklist
from capacity_analysis.compare.verdicts import verdicts as verdicts_of
from capacity_analysis.data.absent import Absent
from capacity_analysis.thresholds.answers import ThresholdStudy, facts
from capacity_reports.blocks import Block, Column, Section, Table, Text
from capacity_reports.figures import joined
from capacity_reports.main_contrast import MainContrast
from capacity_reports.statements import exploratory_sentences, main_sentences
from capacity_reports.views import Analysis

_MOST = 8  # decided sentences that stand in the open


def verdicts(analysis: Analysis) -> tuple[str, ...]:
    """The verdicts: a sentence a pair of methods about the sizes that they need, and one about their accuracies."""
    found: list[str] = []
    said: set[str] = set()
    for view, study in analysis.thresholds:
        where = f"{view.label}: " if view.label else ""
        for ratio, plain, sentence in zip(study.headlines, study.sentences(), ratio_sentences(study), strict=True):
            # Methods without demonstrations stand in several views.
            if not _see_demonstrations(*(curve.partition(" ")[0] for curve in (ratio.numerator, ratio.denominator))):
                if plain in said:
                    continue
                said.add(plain)
            found.append(f"{where}{sentence}")
    compared = () if isinstance(analysis.comparisons, Absent) else verdicts_of(analysis.comparisons)
    return (*found, *(line for verdict in compared for line in verdict.sentences))


def ratio_sentences(study: ThresholdStudy) -> tuple[str, ...]:
    """The sentences about the sizes that methods need, one a pair, with what was asked.

    The first says what the intervals are for.
    """
    question, label = study.question, f"; {study.thresholds[0].interval}"
    asked = f"{100 * question.gain:g} % of the gain" if question.target is None else f"{100 * question.target:g} %"
    return tuple(f"{line} (for {asked}{'' if n else label})." for n, line in enumerate(study.sentences()))


def _see_demonstrations(*methods: str) -> bool:
    """Whether demonstrations take part in the training of any of these methods."""
    return any(facts.sees_demonstrations for name, facts in METHODS.items() if name in methods)


def summary(analysis: Analysis, main: MainContrast, found: Sequence[str]) -> Section:
    """The section of the summary, which opens the report."""
    source = analysis.source
    blocks: list[Block] = []
    if source.predictions:
        blocks.append(Text(("Predicted before the runs:",)))
        blocks.append(Text(source.predictions, bullets=True))
    if found:
        decided = main_sentences(main)[:_MOST]
        blocks.append(Text(decided or (f"No difference between {main.name} is decided.",), strong=True))
        blocks += _exploratory(exploratory_sentences(analysis, main))
        rows = tuple((line,) for line in found)
        title = f"All statements, decided or not ({len(found)})"
        blocks.append(Table("verdicts", title, (Column("verdict", "statement"),), rows, folded=True))
    else:
        blocks.append(Text(("These data allow no verdict: the reasons stand below and in the sections.",), strong=True))
    blocks.append(Text((_counts(analysis),)))
    limits = _unsupported(analysis)
    if not isinstance(source.points, Absent):
        limits += source.points.lacking
    if isinstance(analysis.comparisons, Absent):
        limits.append(f"methods are not compared at equal size: {analysis.comparisons.reason}")
    limits += [
        ": ".join(part for part in (v.label, v.thresholds.reason) if part)
        for v in analysis.views
        if isinstance(v.thresholds, Absent)
    ]
    blocks += not_supported(limits)
    if not isinstance(source.points, Absent):
        blocks.append(_checklist(analysis))
    return Section("summary", "Summary", tuple(blocks))


def _exploratory(sentences: Sequence[str]) -> list[Block]:
    """What other pairs seem to show, under the words that say how far to trust it."""
    if not sentences:
        return []
    said = "Exploratory, each interval stands alone: of twenty pairs that do not differ, one seems to."
    return [Text((said,)), Text(tuple(sentences[:_MOST]), bullets=True)]


def not_supported(limits: Sequence[str]) -> list[Block]:
    """What a reader might take from the data and must not, each said once; empty if there is nothing."""
    said = tuple(dict.fromkeys(limits))
    return [Text(said, bullets=True, folded="Not supported by these data")] if said else []


def _unsupported(analysis: Analysis) -> list[str]:
    """What the thresholds do not support, each said once, with its views unless it holds for all."""
    said: dict[str, set[str]] = {}
    for view, study in analysis.thresholds:
        for line in study.unsupported:
            said.setdefault(line, set()).add(view.label)
    everywhere = len(analysis.thresholds)
    return [line if len(of) == everywhere else f"{joined(sorted(of))}: {line}" for line, of in said.items()]


def _counts(analysis: Analysis) -> str:
    source = analysis.source
    if source.study is None:
        assert not isinstance(source.points, Absent)
        return f"A points table of {len(source.points.frame):,} rows."
    seeds = {run.spec.seed for run in source.trained}
    text = (
        f"{len(source.runs):,} runs are complete, {len(source.trained):,} of them of trained updates on test items; "
        f"{len(source.failures):,} failed, {len(source.missing):,} are missing."
    )
    if len(seeds) == 1:
        text += " There is one seed: the spread between seeds is unknown and in no interval."
    return text


def _checklist(analysis: Analysis) -> Table:
    source = analysis.source
    assert not isinstance(source.points, Absent)
    known = next((facts(study) for _, study in analysis.thresholds), None)
    first = analysis.thresholds[0][0].label if len(analysis.views) > 1 and analysis.thresholds else ""
    note = f"What concerns thresholds is answered for {first}." if first else ""
    return checklist_table(checklist(source.points, source.study, known), note)


def checklist_table(answers: Sequence[Answer], note: str = "") -> Table:
    """The checklist, a row a question."""
    columns = (
        Column("number", "", "count"),
        Column("question", "question"),
        Column("answer", "answer"),
        Column("reason", "why"),
    )
    rows = tuple((a.number, a.question, a.answer, a.reason) for a in answers)
    title = f"Checklist: {sum(a.answer == 'yes' for a in answers)} of {len(answers)} answers are yes"
    return Table("checklist", title, columns, rows, note, folded=True)
