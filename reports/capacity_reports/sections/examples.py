"""Completions before and after training: what the untrained model wrote, and what each method made of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from capacity.runs.study import Run
from capacity.spec.result import Outcome
from capacity_analysis.data.absent import Absent
from capacity_reports.blocks import Block, Example, Section, Text
from capacity_reports.sources import Lookups, Source, attempt, ordered
from capacity_reports.views import Analysis

LONGEST = 600  # characters of a completion
TITLE = "Examples"
Outcomes = dict[str, Outcome]


def examples_section(analysis: Analysis, lookups: Lookups) -> Section:
    """The section of examples: of each model the first item that training mended, kept and broke."""
    source = analysis.source
    if not source.trained:
        why = "a points table holds no completions" if source.study is None else "no trained run is complete"
        return Section("examples", TITLE, (), why)
    found: list[Block] = []
    reasons = []
    for model in dict.fromkeys(run.spec.model for run in source.trained):
        blocks = attempt(partial(_of_model, source, model, lookups))
        if isinstance(blocks, Absent):
            reasons.append(f"{model}: {blocks.reason}")
        else:
            found += blocks
    if not found:
        return Section("examples", TITLE, (), "; ".join(reasons))
    intro = (
        "Of each method its most accurate size, smallest seed. Shown are the first item that the "
        "untrained model missed and most "
        "methods mended, the first that all got right, and the first that it got right and most lost. "
        "They illustrate; they are no "
        "measurement."
    )
    return Section(
        "examples", TITLE, (Text((intro,)), *found, *([Text(tuple(reasons), bullets=True)] if reasons else []))
    )


def _of_model(source: Source, model: str, lookups: Lookups) -> list[Block] | Absent:
    trained = [run for run in source.trained if run.spec.model == model]
    protocol, task = trained[0].spec.evaluation, trained[0].spec.task.name
    trained = [run for run in trained if run.spec.evaluation == protocol and run.spec.task.name == task]
    base = next(
        (
            run
            for run in source.runs
            if run.spec.method == "base"
            and run.spec.model == model
            and run.spec.evaluation == protocol
            and run.spec.task.name == task
        ),
        None,
    )
    if base is None:
        return Absent("the untrained model was not run under the same protocol")
    shown = {"untrained": base, **_best(trained)}
    outcomes: dict[str, Outcomes] = {
        name: {outcome.item: outcome for outcome in run.outcomes()} for name, run in shown.items()
    }
    return [
        Example(f"{model}, {word}", _prompt(lookups, base, item), _answers(shown, outcomes, item))
        for word, item in _chosen(outcomes)
    ]


def _best(runs: Sequence[Run]) -> dict[str, Run]:
    """The best run of each method: the smallest seed at the size whose mean accuracy is the highest."""
    best: dict[str, Run] = {}
    for method in ordered([run.spec.method for run in runs]):
        sizes: dict[int, list[Run]] = {}
        for run in runs:
            if run.spec.method == method:
                sizes.setdefault(int(run.result.trained_parameters), []).append(run)
        size = max(sizes, key=lambda s: (sum(r.result.accuracy for r in sizes[s]) / len(sizes[s]), -s))
        best[f"{method}, {size:,} parameters"] = min(sizes[size], key=lambda r: r.spec.seed)
    return best


def _chosen(outcomes: Mapping[str, Outcomes]) -> list[tuple[str, str]]:
    base, *others = outcomes.values()
    shares = {
        item: sum(_right(o[item]) for o in others if item in o) / len(others)
        for item in base
        if all(item in o for o in others)
    }
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("mended", lambda item: not _right(base[item]) and shares[item] > 0.5),
        ("kept", lambda item: _right(base[item]) and shares[item] == 1),
        ("lost", lambda item: _right(base[item]) and shares[item] <= 0.5),
    )
    found = []
    for word, fits in kinds:
        item = next((item for item in shares if fits(item)), None)
        if item is not None:
            found.append((word, item))
    return found


def _right(outcome: Outcome) -> bool:
    return bool(outcome.correct[0])


def _prompt(lookups: Lookups, run: Run, item: str) -> str:
    prompt = lookups.prompt(run.spec, item)
    return item if isinstance(prompt, Absent) else prompt


def _answers(
    shown: Mapping[str, Run], outcomes: Mapping[str, Outcomes], item: str
) -> tuple[tuple[str, str, bool], ...]:
    return tuple(
        (name, _shortened(outcomes[name][item].completions[0]), _right(outcomes[name][item])) for name in shown
    )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"
