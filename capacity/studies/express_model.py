"""Searches for the best update of an adapter on a model that no run has trained, without gradients of the update.

A chosen projection is chosen first, as a run of the same seed would choose it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from capacity.adapters.model import AdaptedModel
from capacity.errors import SpecError
from capacity.plan.kinds.kind import Size
from capacity.plan.specs import trained_spec
from capacity.runs.answers import answers_of
from capacity.sampling.evaluate import Evaluation, evaluate
from capacity.spec.adapters import TinyLora
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.studies.express import OnEvaluation, Search, search_best
from capacity.tasks.catalog import open_task
from capacity.training.base import Base
from capacity.training.first_gradient import layout_of

_CHOOSER: Method = "grpo"  # whose gradient deals entries to groups, and chooses unless the spec names another method
_ANY_RATE: dict[Method, float] = dict.fromkeys(METHODS, 1.0)  # nothing trains


@dataclass(frozen=True)
class Reached:
    """What a search reached with the random parts of one seed, item by item.

    Attributes:
        seed: the seed of the projection, of the search and of the answers.
        base, best: the share of correct samples of each test item, shape (items,).
    """

    seed: int
    base: NDArray[np.float64]
    best: NDArray[np.float64]


def express_model(
    model: str,
    task: TaskSpec,
    size: Size,
    seeds: Sequence[int],
    device: str,
    search: Search,
    on_evaluation: OnEvaluation | None = None,
) -> tuple[Reached, ...]:
    """Searches from zero for the best update of an adapter, once for each seed.

    Args:
        model: the name of the base.
        task: the task that the update is searched for.
        size: the update.
        seeds: the seeds of its random parts.
        device: "cpu" or "cuda".
        search: how much is searched.
        on_evaluation: a function that hears how many updates are tried, and how many there will be.

    Raises:
        SpecError: if each method would choose its own projection, because no method trains here.
        CapacityError: if the model or the task cannot be opened.
    """
    base, found = Base.loaded(model, device), []
    total = search.evaluations * len(seeds)
    for place, seed in enumerate(seeds):

        def heard(done: int, _: int, before: int = place * search.evaluations) -> None:
            if on_evaluation is not None:
                on_evaluation(before + done, total)

        spec = _spec(model, task, size, seed)
        problem, protocol = open_task(spec.task), spec.evaluation
        layout, _, _ = layout_of(base, problem, spec)
        adapted = base.adapted(spec.adapter, layout)
        starts = {"zero": torch.zeros_like(adapted.vector())}
        best = search_best(adapted, base.tokenizer, problem, protocol, starts, search, seed, heard)
        before = _shares(adapted, spec, evaluate(adapted, base.tokenizer, problem, protocol, base=True, run_seed=seed))
        adapted.set_vector(best.vector)
        after = _shares(adapted, spec, evaluate(adapted, base.tokenizer, problem, protocol, run_seed=seed))
        found.append(Reached(seed, before, after))
    return tuple(found)


def _spec(model: str, task: TaskSpec, size: Size, seed: int) -> RunSpec:
    """Returns the run whose first batches choose the projection. Its learning rate plays no part."""
    adapter = size.template
    choice = adapter.choice if isinstance(adapter, TinyLora) else None
    if choice is None:
        return trained_spec(model, task, _CHOOSER, size, seed, "fp32", rates=_ANY_RATE)
    if choice.by == "own":
        raise SpecError("--projection-by own needs a method that trains: choose grpo or rft")
    return trained_spec(model, task, choice.by, size, seed, "fp32", rates=_ANY_RATE)


def _shares(adapted: AdaptedModel, spec: RunSpec, evaluation: Evaluation) -> NDArray[np.float64]:
    return answers_of(evaluation.outcomes, f"{spec.model} {adapted.adapter.label}").shares
