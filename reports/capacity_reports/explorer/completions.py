"""The completions that a page embeds: prompt, reference answer, and what the untrained and trained models wrote.

A page must stay small, so it holds the first items of the evaluation, as many as fit. They are chosen by their place
and by nothing that a model did, so their share of correct answers is an estimate without bias.
"""

from collections.abc import Sequence
from typing import Any

from capacity.errors import CapacityError
from capacity.runs.items import ItemText, read_items
from capacity.runs.study import Run
from capacity.spec.result import Outcome
from capacity_analysis.data.absent import Absent
from capacity_reports.sources import Lookups, Source, ordered

ITEMS = 200  # of each group at most
LONGEST = 2000  # characters of a completion or prompt
ROOM = 1_500_000  # characters of all completions of a page
LEAST = 40  # items; where fewer would fit, only the most accurate size of each method is shown


def completions(source: Source, lookups: Lookups) -> list[dict[str, Any]]:
    """The completions of each model, task and protocol, in one group each.

    Of every cell the run with the smallest seed is shown, and of every item the first sample.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in source.runs:
        if run.spec.evaluation.split == "test":
            key = run.spec.model, run.spec.task.name, run.spec.evaluation.model_dump_json()
            groups.setdefault(key, []).append(run)
    trained = [own for own in groups.values() if any(run.spec.training is not None for run in own)]
    room = ROOM // max(1, len(trained))
    several = len({key[0] for key in groups}) > 1
    made = [_group(source, own, lookups, room) for own in trained]
    for group, own in zip(made, trained, strict=True):
        spec = own[0].spec
        group["name"] = f"{spec.model}, {spec.task.name}" if several else spec.task.name
    return [group for group in made if group["items"]]


def _group(source: Source, runs: Sequence[Run], lookups: Lookups, room: int) -> dict[str, Any]:
    shown = _smallest_seeds(runs)
    fits = _fitting(shown, room)
    if fits < min(LEAST, shown[0].result.n_items):
        shown = _most_accurate(shown)
        fits = _fitting(shown, room)
    outcomes = [run.outcomes()[:fits] for run in shown]
    first = outcomes[0]
    asked = _asked(source, shown[0], [outcome.item for outcome in first], lookups)
    return {
        "items": [
            {"id": outcome.item, "prompt": _cut(prompt), "answer": None if answer is None else _cut(answer)}
            for outcome, (prompt, answer) in zip(first, asked, strict=True)
        ],
        "total": shown[0].result.n_items,
        "runs": [
            _written(run, label, found, first)
            for run, label, found in zip(shown, _labels(shown), outcomes, strict=True)
        ],
    }


def _labels(runs: Sequence[Run]) -> list[str]:
    """A label for each run, in which no two are equal."""
    found = ["untrained model" if run.spec.method == "base" else run.cell.label for run in runs]
    for place, run in enumerate(runs):
        if found.count(run.cell.label) > 1 and run.spec.training is not None:
            found[place] = f"{run.cell.label}, rate {run.spec.training.learning_rate:g}"
    return [
        f"{label} ({run.spec.short_id[:6]})" if found.count(label) > 1 else label
        for label, run in zip(found, runs, strict=True)
    ]


def _smallest_seeds(runs: Sequence[Run]) -> list[Run]:
    """The run with the smallest seed of each cell: the untrained model first, then by method and size."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.spec.seed):
        found.setdefault(run.cell.identity, run)
    rank = {method: place for place, method in enumerate(ordered([run.spec.method for run in found.values()]))}
    return sorted(
        found.values(),
        key=lambda run: (run.spec.method != "base", rank[run.spec.method], run.result.trained_parameters),
    )


def _most_accurate(runs: Sequence[Run]) -> list[Run]:
    best: dict[str, Run] = {}
    for run in runs:
        if run.spec.method not in best or run.result.accuracy > best[run.spec.method].result.accuracy:
            best[run.spec.method] = run
    return list(best.values())


def _fitting(runs: Sequence[Run], room: int) -> int:
    """How many items fit into `room` characters, judged by the first completions of the first and last run."""
    lengths = [
        min(LONGEST, len(outcome.completions[0])) if outcome.completions else 0
        for run in {id(run): run for run in (runs[0], runs[-1])}.values()
        for outcome in run.outcomes()[:ITEMS]
    ]
    mean = 20 + sum(lengths) / max(1, len(lengths))
    return min(ITEMS, max(1, int(room / (mean * len(runs)))))


def _asked(source: Source, run: Run, names: Sequence[str], lookups: Lookups) -> list[tuple[str, str | None]]:
    """The prompt and the reference answer of each item: from the study, or from the task if the study has none."""
    kept: dict[str, ItemText] = {}
    if source.study is not None:
        try:
            kept = read_items(source.study.folder, run.result.items_digest)
        except CapacityError:
            kept = {}  # a damaged file is no reason to show nothing
    found: list[tuple[str, str | None]] = []
    for name in names:
        if name in kept:
            found.append((kept[name].asked, kept[name].answer))
            continue
        prompt, answer = lookups.prompt(run.spec, name), lookups.answer(run.spec, name)
        found.append((name if isinstance(prompt, Absent) else prompt, None if isinstance(answer, Absent) else answer))
    return found


def _written(run: Run, label: str, outcomes: Sequence[Outcome], items: Sequence[Outcome]) -> dict[str, Any]:
    by_name = {outcome.item: outcome for outcome in outcomes}
    found = [by_name.get(outcome.item) for outcome in items]
    return {
        "label": label,
        "method": run.spec.method,
        "base": run.spec.method == "base",
        "accuracy": run.result.accuracy,
        "texts": [None if o is None or not o.completions else _cut(o.completions[0]) for o in found],
        "correct": [None if o is None else int(o.correct[0]) for o in found],
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"
