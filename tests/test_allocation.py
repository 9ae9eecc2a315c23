import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import IDS, MASK, tiny
from hypothesis import given
from hypothesis import strategies as st
from small import small_spec

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.layout import Layout
from capacity.adapters.projection import projections
from capacity.errors import SpecError
from capacity.plan.apportion import deal
from capacity.spec.adapters import LoraXs, TinyLora
from capacity.spec.run import RunSpec
from capacity.training.run import execute


@given(st.data())
def test_all_entries_are_dealt_and_no_group_gets_more_than_it_can_use(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=12))
    largest = data.draw(st.lists(st.integers(1, 9), min_size=len(scores), max_size=len(scores)))
    total = data.draw(st.integers(0, sum(largest)))
    entries = deal(scores, total, largest)
    assert sum(entries) == total
    assert all(0 <= n <= most for n, most in zip(entries, largest, strict=True))


@pytest.mark.parametrize(
    ("scores", "total", "largest", "entries"),
    [
        ([1, 1, 1], 6, [9, 9, 9], (2, 2, 2)),
        ([3, 1], 8, [99, 99], (6, 2)),
        ([3, 1], 8, [4, 99], (4, 4)),
        ([0, 1, 0], 3, [4, 2, 4], (1, 2, 0)),
        ([53, 24, 23], 7, [9, 9, 9], (3, 2, 2)),  # Sainte-Laguë's textbook seats
        ([0, 0], 3, [4, 4], (2, 1)),
    ],
)
def test_entries_follow_the_scores(scores: Any, total: int, largest: Any, entries: Any) -> None:
    assert deal(scores, total, largest) == entries


@pytest.mark.parametrize("scores", [[1.0, -1.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(SpecError, match="needs scores ≥ 0"):
        deal(scores, 2, [4, 4])


def test_more_entries_than_are_of_use_are_refused() -> None:
    with pytest.raises(SpecError, match="9 entries are more than the 8"):
        deal([1, 1], 9, [4, 4])


@pytest.mark.parametrize("entries", [(3, 1), (1, 1), (2, 1, 1), (5, -1)])
def test_allocations_that_do_not_fit_the_plan_are_refused(model: Any, entries: Any) -> None:
    spec = TinyLora(groups=2, u=2, projection_seed=0, rank=1, targets=("q_proj",))
    with pytest.raises(SpecError, match="does not deal 4 entries to 2 groups of at most"):
        attach(model, spec, None, layout=Layout(entries=entries))


def test_the_score_is_the_expected_gradient_of_an_entry() -> None:
    """Over many draws of P, the mean squared gradient of an entry of v equals Σ‖∂loss/∂R‖² / r."""
    base = tiny("llama")
    rank, groups = 2, 2

    def gradient(adapter: Any) -> torch.Tensor:
        adapted = attach(copy.deepcopy(base), adapter, None)
        adapted.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
        (theta,) = adapted.trained.values()
        assert theta.grad is not None
        return theta.grad.double().flatten()

    free = gradient(LoraXs(rank=rank)).view(14, rank, rank)
    names = [s.name for s in attach(copy.deepcopy(base), LoraXs(rank=rank), None).shapes]
    halves = [range(7), range(7, 14)]
    # ∂loss/∂v_i = Σ_m ⟨G_m, P_i⟩ exactly, for one seed …
    one = gradient(TinyLora(rank=rank, groups=groups, u=1, projection_seed=4))
    for half, found in zip(halves, one, strict=True):
        p = [torch.from_numpy(projections(4, names[m], 1, rank)[0]) for m in half]
        torch.testing.assert_close(
            found, sum((free[m] * q).sum() for m, q in zip(half, p, strict=True)), rtol=1e-4, atol=1e-9
        )
    # … and its mean square over P is the squared score.
    for half in halves:
        draws = [
            float(sum((free[m] * torch.from_numpy(projections(seed, names[m], 1, rank)[0])).sum() for m in half)) ** 2
            for seed in range(4000)
        ]
        expected = float(sum(free[m].square().sum() for m in half)) / rank
        assert sum(draws) / len(draws) == pytest.approx(expected, rel=0.1)


def gradient_spec(method: Any, groups: int = 7, u: int = 2) -> RunSpec:
    spec = small_spec(method, rate=0.01)
    adapter = TinyLora(groups=groups, u=u, projection_seed=0, allocation="gradient", allocation_batches=2)
    return spec.model_copy(update={"adapter": adapter})


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_run_measures_records_and_stores_its_allocation(method: Any, model: Any) -> None:
    record = execute(gradient_spec(method), "cpu")
    allocation = record.result.allocation
    assert len(allocation.scores) == len(allocation.entries) == 7
    assert sum(allocation.entries) == record.result.trained_parameters == 14
    assert all(score > 0 for score in allocation.scores)
    assert allocation.cost["sequences"] == 2 * 16
    assert record.artifact is not None
    read = artifact.read(record.artifact, "update")
    assert (read.recipe.entries or (2,) * 7) == tuple(allocation.entries)
    assert artifact.rebuild(read, model, None).trained_parameters == 14
    # Measuring moves nothing else: prompts, samples and costs of training are those of an even run.
    even = small_spec(method, rate=0.01)
    even = even.model_copy(update={"adapter": TinyLora(groups=7, u=2, projection_seed=0)})
    plain = execute(even, "cpu")
    assert plain.steps[0].loss == record.steps[0].loss
    assert plain.result.prompts == record.result.prompts
    assert plain.result.allocation is None


def test_allocation_is_reproducible() -> None:
    first, second = execute(gradient_spec("sft"), "cpu"), execute(gradient_spec("sft"), "cpu")
    assert replace(first, result={}) == replace(second, result={})
    assert first.result.allocation == second.result.allocation


def test_without_any_gradient_there_is_a_diagnosis(monkeypatch: Any) -> None:
    from capacity.errors import TrainingError
    from capacity.tasks.abacus import AbacusTask

    monkeypatch.setattr(AbacusTask, "grade", lambda *_: False)
    with pytest.raises(TrainingError, match="no gradient in 2 batches to decide by: use --allocation even"):
        execute(gradient_spec("grpo"), "cpu")
