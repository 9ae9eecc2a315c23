"""Thirteen questions that a comparison of update sizes should answer, filled in by the program: yes, no, not measured.

What the points table and the study folder show is read from them. What only the analysis of thresholds knows (target,
brackets, fits, null calibration) is handed in as `ThresholdFacts`; without it those lines say "not measured".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from capacity.runs.study import Run, Study
from capacity.spec.methods import METHODS
from capacity_analysis.data.recipes import keys
from capacity_analysis.data.table import Points
from capacity_analysis.data.tuning import RateTrials, rate_trials, tuning_trials
from capacity_analysis.thresholds.answers import ThresholdFacts

State = Literal["yes", "no", "not measured"]

QUESTIONS = (
    "one absolute target for every arm",
    "learning rate tuned per method and size, equal trials, optimum inside the rates tried",
    "selection on validation, fresh seeds on test",
    "at least 5 seeds, failures kept",
    "arms paired by item",
    "prompts and sequences matched; tokens, rollouts, FLOPs shown",
    "rft control",
    "base at several temperatures and random-reward controls",
    "same projections, sharing and dtype in both arms",
    "both thresholds bracketed by the tested sizes",
    "null calibration of this very design",
    "fit and parallelism tested",
    "interval of the ratio against 10×, not only 1×",
)
ENOUGH_SEEDS = 5
_EXTREME = 10.0
# What a tuning is known by where `tuning.json` tells of it: model, method, trained parameters.
_Tuned = tuple[str, str, int]
# Cells that differ in these only are a pair: the method, what it learns from, its parts, and the rate tuned for it.
_PAIRED = ("method", "demonstrations", "learning_rate", "grpo", "rft", "warm_start")


@dataclass(frozen=True)
class Answer:
    """One line: its number from 1, the question, the answer, and one reason."""

    number: int
    question: str
    answer: State
    reason: str


def checklist(
    points: Points,
    study: Study | None = None,
    thresholds: ThresholdFacts | None = None,
) -> tuple[Answer, ...]:
    """The thirteen lines for one points table.

    Args:
        points: as read.
        study: its folder, if it has one: shows failures, costs and recipes of the runs.
        thresholds: what the analysis of thresholds found.
    """
    trials = _trials(points, study)
    named = set(points.frame["run"].dropna())
    read: Sequence[Run] = [] if study is None else points.memo.get("runs") or study.runs()
    runs = [run for run in read if run.spec.training is not None and run.short_id in named]
    failures = len(study.failures()) if study is not None else None
    facts = thresholds or ThresholdFacts()
    found: tuple[tuple[State, str], ...] = (
        _target(facts),
        _tuned(points, trials),
        _selection(points, trials),
        _seeds(points, failures),
        _paired(points),
        _matched(points, runs),
        _method(points, "rft", "rft separates the objective from off-policy demonstrations"),
        _controls(points),
        _same_recipe(points, runs),
        _bracketed(facts),
        ("yes", "printed with the thresholds")
        if facts.null_calibrated
        else ("not measured", "no null calibration was computed"),
        _tests(facts),
        _ratio(facts),
    )
    return tuple(
        Answer(number, question, state, reason)
        for number, (question, (state, reason)) in enumerate(zip(QUESTIONS, found, strict=True), start=1)
    )


def _trained(points: Points) -> pd.DataFrame:
    """Test rows of trained updates."""
    frame = points.frame
    return frame[(frame["trained_parameters"] > 0) & (frame["split"] != "validation").fillna(True)]


def _target(facts: ThresholdFacts) -> tuple[State, str]:
    if facts.target is None:
        return "not measured", "no threshold was asked for"
    return "yes", f"accuracy {100 * facts.target:.1f} % for every arm"


def _trials(points: Points, study: Study | None) -> tuple[RateTrials, ...]:
    """What the study's tuning recorded, and the validation rows of what it does not name."""
    recorded = () if study is None else tuning_trials(study.folder)
    named = {_tuning(t) for t in recorded}
    return (*recorded, *(t for t in rate_trials(points) if _tuning(t) not in named))


def _tuning(trials: RateTrials) -> _Tuned:
    return (trials.model or "", trials.method, trials.trained_parameters)


def _tuned(points: Points, trials: Sequence[RateTrials]) -> tuple[State, str]:
    """Trials are equal if the methods that are compared with one another, those of one size, had as many."""
    if not trials:
        return "not measured", "neither tuning.json nor validation rows show which learning rates were tried"
    tuned, rows = {_tuning(t) for t in trials}, _trained(points)
    places = zip(rows["model"].fillna(""), rows["method"], rows["trained_parameters"], strict=True)
    needed = {(str(model), part, int(size)) for model, method, size in places for part in _rates_of(str(method))}
    missing = sorted(needed - tuned)
    if missing:
        return "no", f"no trials for {_some(f'{model} {m} {s:,}'.strip() for model, m, s in missing)}"
    used = [t for t in trials if _tuning(t) in needed]
    unequal = [t for t in used if not t.equal_trials]
    for model, size in dict.fromkeys((t.model, t.trained_parameters) for t in used):
        compared = [t for t in used if (t.model, t.trained_parameters) == (model, size)]
        unequal += compared if len({t.tried for t in compared}) > 1 else []
    if unequal:
        return "no", f"not as many trials for every method: {_some(t.name for t in unequal)}"
    edge = [t.name for t in used if t.at_edge]
    if edge:
        return "no", f"optimum at the edge of the rates tried: {_some(edge)}"
    fewest, most = (f(t.tried for t in used) for f in (min, max))
    return "yes", f"{fewest if fewest == most else f'{fewest} to {most}'} rates for each of {len(used)} arms"


def _rates_of(method: str) -> tuple[str, ...]:
    """The methods whose tuning a method trains with: a control has the rate of what it controls."""
    facts = next((facts for name, facts in METHODS.items() if name == method), None)
    return (method,) if facts is None else tuple(METHODS[phase].rate_from for phase in facts.phases)


def _selection(points: Points, trials: Sequence[RateTrials]) -> tuple[State, str]:
    if not trials:
        return "not measured", "no validation rows: where the rates come from is not recorded"
    frame = points.frame
    tuned = (frame["split"] == "validation").fillna(False) & (frame["trained_parameters"] > 0)
    validation = set(frame.loc[tuned, "seed"].dropna())
    test = set(_trained(points)["seed"].dropna())
    if not validation or not test:
        return "not measured", "seeds are not recorded"
    shared = sorted(int(seed) for seed in validation & test)
    if shared:
        return "no", f"seeds {_some(map(str, shared))} served selection and test"
    return "yes", "rates chosen on validation rows, test seeds are others"


def _seeds(points: Points, failures: int | None) -> tuple[State, str]:
    rows = _trained(points)
    if rows.empty:
        return "not measured", "no trained runs"
    # A run without a named seed is one of its own.
    least = int(rows.groupby("cell")["seed"].agg(lambda own: own.nunique() + own.isna().sum()).min())
    if least < ENOUGH_SEEDS:
        return "no", f"{least} seed{'s' if least > 1 else ''} in the smallest arm"
    if failures is None:
        return "not measured", f"at least {least} seeds, but a table does not show failed runs"
    return "yes", f"at least {least} seeds; {failures} failed runs are kept"


def _paired(points: Points) -> tuple[State, str]:
    if points.outcomes is None:
        return "no", "the source has no per-item outcomes"
    trained = _trained(points)
    if trained.empty:
        return "not measured", "no trained runs"
    asked = ~np.isnan(points.outcomes[trained.index])
    counts = set()
    for rows in trained.groupby(["model", "task", "split"], dropna=False).indices.values():
        if (asked[rows] != asked[rows[0]]).any():
            return "no", "arms answered different items"
        counts.add(int(asked[rows[0]].sum()))
    return "yes", f"the same {' or '.join(f'{count:,}' for count in sorted(counts))} items for every arm"


def _matched(points: Points, runs: Sequence[Run]) -> tuple[State, str]:
    if not runs:
        return "not measured", "a table does not show what training used"
    pairs = dict(zip(points.frame["run"], keys(points, *_PAIRED), strict=True))
    counts = [
        (run, run.result.prompts, run.result.sequences)
        for run in runs
        if run.result.prompts is not None and run.result.sequences is not None
    ]
    used: dict[str, set[tuple[int, int]]] = {}
    for run, prompts, sequences in counts:
        used.setdefault(pairs[run.short_id], set()).add((prompts, sequences))
    uneven = dict.fromkeys(run.spec.model for run, _, _ in counts if len(used[pairs[run.short_id]]) > 1)
    if uneven:
        return "no", f"prompts or sequences differ between runs of {_some(uneven)}"
    if len(counts) < len(runs):
        return "not measured", f"not recorded: prompts and sequences of {len(runs) - len(counts)} of {len(runs)} runs"
    every = set().union(*used.values())
    if len(every) > 1:
        return "yes", "as many prompts and sequences for every method of a pair; the rest is in each result.json"
    ((prompts, sequences),) = every
    return "yes", f"{prompts:,} prompts and {sequences:,} sequences in every run; the rest is in its result.json"


def _method(points: Points, method: str, why: str) -> tuple[State, str]:
    """Whether a method stands beside every cell of sft and grpo."""
    rows = _trained(points)
    pairs = keys(points, *_PAIRED)[rows.index]
    own = set(pairs[rows["method"] == method])
    if not own:
        return "no", f"no runs of {method}: {why}"
    others = rows[rows["method"].isin(["sft", "grpo"]) & ~pairs.isin(own)]
    missing = sorted({int(size) for size in others["trained_parameters"]})
    if missing:
        return "no", f"{method} is missing at {_some(f'{size:,}' for size in missing)} trained parameters"
    return "yes", f"{method} at every size of sft and grpo"


def _controls(points: Points) -> tuple[State, str]:
    frame = points.frame
    protocols = frame[frame["method"] == "base"].groupby(["model", "task"], dropna=False)["protocol"].nunique()
    have = {
        "base at several temperatures": len(protocols) > 0 and bool((protocols > 1).all()),
        "random-reward": bool((frame["method"] == "random-reward").any()),
    }
    missing = [name for name, there in have.items() if not there]
    if missing:
        present = [name for name, there in have.items() if there]
        return "no", f"missing: {', '.join(missing)}" + (f"; there: {', '.join(present)}" if present else "")
    return "yes", "both"


def _same_recipe(points: Points, runs: Sequence[Run]) -> tuple[State, str]:
    """Whether every two methods have a recipe in common at each size that both were trained at."""
    recipes: dict[tuple[str, str], dict[str, set[str]]] = {}  # of every model and place, by method
    if runs:
        for run in runs:
            place = f"{run.spec.adapter.kind} {run.result.trained_parameters:,} seed {run.spec.seed}"
            own = recipes.setdefault((run.spec.model, place), {}).setdefault(run.spec.method, set())
            own.add(f"{run.spec.adapter.model_dump_json()} {run.spec.storage_dtype}")
    else:
        rows = _trained(points)
        pairs = keys(points, *_PAIRED)
        for row, model, method, size in rows[["model", "method", "trained_parameters"]].itertuples(name=None):
            recipes.setdefault((str(model), f"{size:,}"), {}).setdefault(method, set()).add(pairs[row])
    apart = [p for (_, p), own in recipes.items() if any(not a & b for a, b in combinations(own.values(), 2))]
    if apart:
        return "no", f"adapter or dtype differ at {_some(apart)}"
    if not runs:
        return "not measured", "seeds of the projections are in run folders only"
    return "yes", "adapter, seed of the projections and dtype are equal at every size and seed"


def _bracketed(facts: ThresholdFacts) -> tuple[State, str]:
    if facts.censoring is None:
        return "not measured", "no threshold was asked for"
    words = {"left": "already reached at the smallest size", "right": "not reached at the largest"}
    open_ended = [f"{curve}: {words[state]}" for curve, state in facts.censoring if state != "none"]
    return ("no", "; ".join(open_ended)) if open_ended else ("yes", "each target lies between two tested sizes")


def _tests(facts: ThresholdFacts) -> tuple[State, str]:
    done = {"fit": facts.fit_tested, "parallelism": facts.parallel_tested}
    missing = [name for name, there in done.items() if not there]
    if not missing:
        return "yes", "both tests are printed with the thresholds"
    return "not measured", f"{' and '.join(missing)} not tested"


def _ratio(facts: ThresholdFacts) -> tuple[State, str]:
    if facts.ratio is None:
        return "not measured", "no ratio with an interval"
    low, high = facts.ratio
    if low >= _EXTREME:
        return "yes", f"the interval begins at {low:.3g}×, above 10×"
    if high < _EXTREME:
        return "yes", f"the interval ends at {high:.3g}×, below 10×"
    return "yes", "the interval holds 10×: neither more nor less than 10× is shown"


def _some(names: Iterable[str], most: int = 3) -> str:
    """Up to three names, then how many more."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
