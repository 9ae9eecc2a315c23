"""Searches for the best update of an adapter without gradients: what the adapter can express, learned or not.

The search is CMA-ES (Hansen, arXiv 1604.00772) on the share of training items that are answered correctly. All updates
answer the same items with the same random numbers. Every start gets equally many evaluations. What the starts found is
chosen between on validation items. The result is a lower bound of what the adapter can express, never the ceiling.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capacity.adapters.model import AdaptedModel
from capacity.adapters.open import open_native
from capacity.errors import DataError
from capacity.runs import files
from capacity.runs.answers import answers_of
from capacity.runs.fingerprint import current
from capacity.runs.study import Run, Study
from capacity.sampling.evaluate import evaluate
from capacity.sampling.exam import Exam
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Task

FOLDER = "expressed"
OnEvaluation = Callable[[int, int], None]
_STEP = 0.1  # the first step of a search that knows no trained update


@dataclass(frozen=True)
class Search:
    """Says how much is searched.

    Attributes:
        evaluations: how many updates each start tries.
        items: how many training items each of them answers.
        validation_items: how many validation items choose between what was found.
    """

    evaluations: int = 200
    items: int = 512
    validation_items: int = 512


@dataclass(frozen=True)
class Best:
    """The best update that a search found.

    Attributes:
        vector: the update.
        start: the name of the start that it was found from.
        validation: the share of validation items that it answers correctly.
    """

    vector: Tensor
    start: str
    validation: float


def search_best(
    adapted: AdaptedModel,
    tokenizer: Any,
    task: Task,
    protocol: EvaluationSpec,
    starts: Mapping[str, Tensor],
    search: Search,
    seed: int,
    on_evaluation: OnEvaluation | None = None,
) -> Best:
    """Searches from every start, and returns the update that answers most validation items. Ties go to the earlier one.

    The starts themselves are among the updates that are chosen between.

    Args:
        adapted: the model, which holds one update after the other.
        tokenizer: its tokenizer.
        task: the task.
        protocol: temperature and number of tokens are taken from it.
        starts: updates by name, of shape (n,) each.
        search: how much is searched.
        seed: what the search and the random numbers follow from.
        on_evaluation: a function that hears how many updates are tried, and how many there will be.
    """
    how: dict[str, Any] = {"temperature": protocol.temperature, "max_new_tokens": protocol.max_new_tokens, "seed": seed}
    exam = Exam(task, tokenizer, "train", search.items, **how)
    steps = [float(start.square().mean().sqrt()) for start in starts.values() if bool(start.any())]
    found: list[tuple[str, Tensor]] = list(starts.items())
    total = search.evaluations * len(starts)
    for place, (name, start) in enumerate(starts.items()):

        def missed(vector: Tensor, done: int, before: int = place * search.evaluations) -> float:
            adapted.set_vector(vector)
            if on_evaluation is not None:
                on_evaluation(before + done, total)
            return 1 - float(exam.hits(adapted).mean())

        found += [(name, vector) for vector in _searched(missed, start, max(steps, default=_STEP), search, seed)]
    choosing = Exam(task, tokenizer, "validation", search.validation_items, **how)
    shares = []
    for _, vector in found:
        adapted.set_vector(vector)
        shares.append(float(choosing.hits(adapted).mean()))
    best = int(np.argmax(shares))
    name, vector = found[best]
    return Best(vector, name, shares[best])


def _searched(
    missed: Callable[[Tensor, int], float], start: Tensor, step: float, search: Search, seed: int
) -> list[Tensor]:
    """Returns the best update that was tried from one start, and the mean of the last distribution."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cma warns of what its plots would need
        import cma

    n = len(start)
    # The library has no search in one dimension, so a second one is added that changes nothing.
    first = np.concatenate([start.double().numpy(), np.zeros(1 if n == 1 else 0)])
    options = {"seed": seed + 1, "verbose": -9, "maxfevals": search.evaluations}  # its seed 0 means the clock
    strategy = cma.CMAEvolutionStrategy(first, step, options)
    done, best, fewest = 0, start, np.inf
    while done < search.evaluations:
        asked = strategy.ask()
        losses = []
        for vector in asked:
            done += 1
            tried = torch.from_numpy(np.asarray(vector)[:n]).float()
            losses.append(missed(tried, min(done, search.evaluations)))
            if losses[-1] < fewest:
                best, fewest = tried, losses[-1]
        strategy.tell(asked, losses)
    return [best, torch.from_numpy(np.asarray(strategy.mean)[:n]).float()]


@dataclass(frozen=True)
class Expressed:
    """What was searched for one run, with the answers that compare the base, the method and the search.

    Attributes:
        run: the run.
        start: the start that the best update was found from.
        base, trained, best: the share of correct samples of each item, shape (items,).
    """

    run: Run
    start: str
    base: NDArray[np.float64]
    trained: NDArray[np.float64]
    best: NDArray[np.float64]


def express(
    study: Study,
    device: str,
    search: Search,
    *,
    largest: int,
    methods: Sequence[str] = (),
    on_evaluation: OnEvaluation | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> tuple[Expressed, ...]:
    """Searches for the best update of every trained TinyLoRA of a study, from zero and from the trained update.

    What was searched in the present environment is not searched again.

    Args:
        study: its complete runs on the test split are taken.
        device: "cpu" or "cuda".
        search: how much is searched.
        largest: runs of more parameters are left out.
        methods: the methods whose runs are taken; all if there is none.
        on_evaluation: a function that hears of every update that is tried.
        on_run: a function that hears how many runs are done, and how many there are.

    Raises:
        DataError: if no run is left, or an artifact cannot be rebuilt here.
        StudyLockedError: if another process works on the study.
    """
    runs = [
        run
        for run in study.runs()
        if run.spec.evaluation.split == "test"
        and run.spec.training is not None
        and run.spec.adapter.kind == "tinylora"
        and run.result.trained_parameters <= largest
        and (not methods or run.spec.method in methods)
    ]
    if not runs:
        raise DataError(f"{study.folder}: no complete tinylora run of at most {largest} parameters to search for")
    environment = current(device, "fp32").digest
    made = []
    with study.locked():
        (study.folder / FOLDER).mkdir(exist_ok=True)
        for done, run in enumerate(runs):
            if on_run is not None:
                on_run(done, len(runs))
            made.append(_of_run(study.folder / FOLDER, run, device, search, environment, on_evaluation))
    return tuple(made)


def _of_run(
    folder: Path, run: Run, device: str, search: Search, environment: str, on_evaluation: OnEvaluation | None
) -> Expressed:
    """Returns what was searched for one run before in the same way, or searches now and writes it."""
    path = folder / f"{run.spec.short_id}.json"
    head = {"run": run.spec.identity, "fingerprint": environment, "search": asdict(search)}
    known = files.read_json(path) if path.exists() else None
    if not isinstance(known, dict) or {name: known.get(name) for name in head} != head:
        known = head | _record(run, device, search, on_evaluation)
        files.write_atomically(path, json.dumps(known, allow_nan=False) + "\n")
    base, best = (np.array(known[name], dtype=np.float64) for name in ("base", "best"))
    return Expressed(run, str(known["start"]), base, run.answers.shares, best)


def _record(run: Run, device: str, search: Search, on_evaluation: OnEvaluation | None) -> dict[str, Any]:
    opened = open_native(run.folder, None, device)
    assert opened.adapted is not None
    task, protocol = open_task(run.spec.task), run.spec.evaluation
    trained = opened.adapted.vector()
    starts = {"zero": torch.zeros_like(trained), "trained": trained}
    seed = run.spec.seed
    best = search_best(opened.adapted, opened.tokenizer, task, protocol, starts, search, seed, on_evaluation)
    opened.adapted.set_vector(best.vector)
    found = evaluate(opened.adapted, opened.tokenizer, task, protocol, run_seed=seed)
    base = evaluate(opened.adapted, opened.tokenizer, task, protocol, base=True, run_seed=seed)
    shares = {
        name: answers_of(of.outcomes, run.spec.label).shares.tolist() for name, of in (("best", found), ("base", base))
    }
    return {"start": best.start, "validation": best.validation, "update": best.vector.tolist(), **shares}
