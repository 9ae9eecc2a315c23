"""Chosen projections: which candidate is taken, what is stored of it, and what a run records."""

import copy
import hashlib
import time
from typing import Any

import numpy as np
import pytest
import torch
from architectures import IDS, MASK, tiny
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from sizes import chosen, within
from small import TASK, small_spec
from stored import CHOSEN, NUMBERS, updated

import capacity
from capacity.adapters.attach import attach
from capacity.adapters.candidates import best_candidates
from capacity.adapters.files import artifact
from capacity.adapters.files.choice_bits import pack_candidates, unpack_candidates
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.layout import Layout
from capacity.adapters.projection import normal_entries, projection
from capacity.errors import DataError, SpecError
from capacity.plan.rates import rate_remarks, shipped, tuned_rate
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.storage import choice_bytes, parameters_within
from capacity.plan.storage import payload_bytes as planned_bytes
from capacity.spec.adapters import LoraXs, ProjectionChoice, TinyLora
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.training import first_gradient
from capacity.training.base import Base, Bases
from capacity.training.base_gradients import BaseGradients, FirstGradient
from capacity.training.batch import Cost, Recorder
from capacity.training.phases import phases
from capacity.training.run import execute

NAMES = [f"layers.{i}" for i in range(6)]


# Candidates


def test_candidate_zero_is_the_random_projection() -> None:
    np.testing.assert_array_equal(projection(3, "m", 1, 4, 0), projection(3, "m", 1, 4))


def test_candidates_keep_their_golden_scheme() -> None:
    digest = hashlib.shake_256(b"capacity-P-1|5|layers.0|2|77").digest(8 * 9)
    top53 = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") >> 11 for i in range(9)]
    expected = ndtri((np.array(top53, dtype=np.float64) + 0.5) / 2**53).reshape(3, 3) / np.sqrt(3)
    np.testing.assert_allclose(projection(5, "layers.0", 2, 3, 77), expected, rtol=0, atol=1e-12)


def test_many_candidates_at_once_agree_with_each_alone() -> None:
    numbers = [0, 1, 77, 4095]
    together = normal_entries(5, "layers.0", 2, 3, numbers)
    alone = [projection(5, "layers.0", 2, 3, number).reshape(-1) for number in numbers]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_the_best_candidate_holds_most_energy() -> None:
    gradients = np.random.default_rng(0).normal(size=(6, 3, 3))
    group = (0, 1, 0, 1, 0, 1)
    found = best_candidates(gradients, NAMES, group, (1, 1), seed=4, bits=6)
    for g in range(2):
        members = [m for m in range(6) if group[m] == g]
        slopes = [
            sum((gradients[m] * projection(4, NAMES[m], 0, 3, number)).sum() for m in members) for number in range(64)
        ]
        assert found.numbers[g] == int(np.square(slopes).argmax())
        assert found.energies[g] == pytest.approx(np.square(slopes).max())
        assert found.expected[g] == pytest.approx(sum(np.square(gradients[m]).sum() for m in members) / 3)


def test_each_further_direction_sees_what_those_before_it_leave() -> None:
    """The directions of a group, made orthogonal, hold as much of the gradient as their energies say."""
    gradients = np.random.default_rng(1).normal(size=(3, 2, 2))
    found = best_candidates(gradients, NAMES[:3], (0, 0, 0), (4,), seed=0, bits=5)
    left = gradients.reshape(-1)
    chosen_before: list[np.ndarray] = []
    for index, number in enumerate(found.numbers):
        pool = [np.concatenate([projection(0, name, index, 2, n).reshape(-1) for name in NAMES[:3]]) for n in range(32)]
        if chosen_before:
            q, _ = np.linalg.qr(np.array(chosen_before).T)
            left = gradients.reshape(-1) - q @ (q.T @ gradients.reshape(-1))
        energies = np.square(pool @ left)
        assert number == int(energies.argmax())
        assert found.energies[index] == pytest.approx(energies.max())
        chosen_before.append(pool[number])


@pytest.mark.parametrize(("bits", "gain"), [(4, 4.6), (8, 9.4), (12, 14.6)])
def test_the_energy_gained_is_that_of_the_largest_of_many_draws(bits: int, gain: float) -> None:
    """Theory: the mean of the largest of 2^b draws of χ²₁."""
    rng = np.random.default_rng(bits)
    ratios = []
    for seed in range(20 if bits == 12 else 60):
        found = best_candidates(rng.normal(size=(6, 2, 2)), NAMES, (0, 1, 2, 3, 4, 5), (1,) * 6, seed, bits)
        ratios += [energy / expected for energy, expected in zip(found.energies, found.expected, strict=True)]
    assert np.mean(ratios) == pytest.approx(gain, rel=0.08)


def test_candidates_of_a_large_model_take_less_than_a_minute() -> None:
    """Twelve bits for one group of the 252 modules of Qwen2.5-3B, rank 2."""
    names = [f"model.layers.{i}.mlp.up_proj" for i in range(252)]
    began = time.process_time()
    best_candidates(np.random.default_rng(0).normal(size=(252, 2, 2)), names, (0,) * 252, (1,), seed=0, bits=12)
    assert time.process_time() - began < 60


# Storage


@given(st.integers(1, 16), st.data())
def test_packed_candidates_come_back(bits: int, data: st.DataObject) -> None:
    numbers = tuple(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40)))
    stored = pack_candidates(numbers, bits)
    assert len(stored) == choice_bytes(len(numbers), bits)
    assert unpack_candidates(stored, len(numbers), bits) == numbers


@pytest.mark.parametrize(
    "stored", [None, torch.zeros(4, dtype=torch.uint8), torch.zeros(3), torch.tensor([0, 0, 1], dtype=torch.uint8)]
)
def test_a_damaged_choice_is_refused(stored: Any) -> None:
    with pytest.raises(DataError, match="the choice of the projection cannot be read"):
        unpack_candidates(stored, 7, 3)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("bits", [1, 8, 13])
@pytest.mark.parametrize("size", [1, 9, 26, 39, 1000])
def test_a_budget_in_bits_counts_the_choice(dtype: str, bits: int, size: int) -> None:
    most = parameters_within(8 * size, dtype, bits)
    assert most == max(n for n in range(9000) if planned_bytes(n, dtype) + choice_bytes(n, bits) <= size)


def test_a_chosen_projection_is_rebuilt(model: Any) -> None:
    adapted, data = updated(model, CHOSEN, Layout(candidates=NUMBERS))
    read = artifact.read(data, "u")
    assert payload_bytes(read.payload) == 26 + 13
    rebuilt = artifact.rebuild(read, copy.deepcopy(model), None)
    assert rebuilt.candidates == NUMBERS
    for (_, a, b), (_, c, d) in zip(adapted.pairs(), rebuilt.pairs(), strict=True):
        assert torch.equal(b @ a, d @ c)
    random, _ = updated(model, TinyLora(groups=13, u=1, projection_seed=7), Layout())
    first = [torch.equal(b, d) for (_, _, b), (_, _, d) in zip(adapted.pairs(), random.pairs(), strict=True)]
    assert 0 < sum(first) < len(first)  # candidate 0 of the first group is the random P, the others are not


@pytest.mark.parametrize(
    ("adapter", "candidates"),
    [
        (CHOSEN, None),
        (CHOSEN, (0,) * 12),
        (CHOSEN, (256,) * 13),
        (TinyLora(groups=13, u=1, projection_seed=7), NUMBERS),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(model: Any, adapter: TinyLora, candidates: Any) -> None:
    with pytest.raises(SpecError, match="candidates"):
        attach(copy.deepcopy(model), adapter, None, layout=Layout(candidates=candidates))


# Runs


def chosen_spec(method: Any, by: Any = "grpo", bits: int = 4, u: int = 1) -> RunSpec:
    adapter = TinyLora(groups=7, u=u, projection_seed=0, choice=ProjectionChoice(bits=bits, by=by, batches=2))
    return small_spec(method, rate=0.01).model_copy(update={"adapter": adapter})


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return {method: execute(chosen_spec(method), "cpu") for method in ("sft", "grpo", "rft")}


def test_all_methods_of_a_seed_share_the_projection(runs: dict[str, Any]) -> None:
    choices = [record.result.choice for record in runs.values()]
    assert choices[0] == choices[1] == choices[2]
    assert choices[0].cost["sequences"] == 2 * 16
    assert {record.result.preparation_flops for record in runs.values()} == {choices[0].cost["flops"]}
    assert choices[0].cost["flops"] > 0
    assert all(energy > 0 for energy in choices[0].energies)


def test_a_run_stores_its_choice_and_counts_its_bytes(runs: dict[str, Any], model: Any) -> None:
    result, data = runs["grpo"].result, runs["grpo"].artifact
    read = artifact.read(data, "u")
    assert result.update_bytes == payload_bytes(read.payload) == 14 + choice_bytes(7, 4)
    assert artifact.rebuild(read, copy.deepcopy(model), None).candidates == result.choice.candidates


def test_each_method_may_choose_for_itself(runs: dict[str, Any]) -> None:
    own = execute(chosen_spec("sft", by="own"), "cpu").result.choice
    assert own.candidates != runs["sft"].result.choice.candidates
    assert own.cost["sampled_sequences"] == 0


def test_the_choice_is_reproducible(runs: dict[str, Any]) -> None:
    again = execute(chosen_spec("grpo"), "cpu")
    assert again.artifact == runs["grpo"].artifact


def test_runs_on_one_base_measure_their_gradient_once(runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a seed share it, and give what each gives alone. Another seed and an own choice measure again."""
    measured, measure = [], first_gradient._measured

    def counted(base: Base, task: Any, probe: RunSpec, *others: Any) -> Any:
        measured.append((probe.method, probe.seed))
        return measure(base, task, probe, *others)

    monkeypatch.setattr(first_gradient, "_measured", counted)
    bases = Bases("cpu")
    together = {method: execute(chosen_spec(method), "cpu", bases=bases) for method in runs}
    assert measured == [("grpo", 0)]
    for method, alone in runs.items():
        assert together[method].artifact == alone.artifact
        assert together[method].result.choice == alone.result.choice
        assert [step.loss for step in together[method].steps] == [step.loss for step in alone.steps]
    larger = execute(chosen_spec("sft", bits=3, u=2), "cpu", bases=bases).result.choice
    assert measured == [("grpo", 0)]
    assert larger == execute(chosen_spec("sft", bits=3, u=2), "cpu").result.choice
    measured.clear()
    execute(chosen_spec("sft", by="own"), "cpu", bases=bases)
    execute(chosen_spec("sft").model_copy(update={"seed": 1}), "cpu", bases=bases)
    assert measured == [("sft", 0), ("grpo", 1)]


def changed(spec: RunSpec, part: str, **fields: Any) -> RunSpec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=fields)})


def free(**fields: Any) -> RunSpec:
    return small_spec("grpo").model_copy(update={"adapter": LoraXs(**{"rank": 2, **fields})})


@pytest.mark.parametrize(
    ("other", "batches", "shared"),
    [
        (changed(free(), "training", learning_rate=0.5), 2, True),
        (changed(free(), "evaluation", items=3), 2, True),
        (free().model_copy(update={"storage_dtype": "fp32"}), 2, True),
        (free(), 3, False),
        (free(rank=3), 2, False),
        (free(scaling="split"), 2, False),
        (free(targets=("q_proj",)), 2, False),
        (free().model_copy(update={"seed": 1}), 2, False),
        (changed(free(), "training", prompts_per_step=2), 2, False),
        (changed(free(), "training", samples_per_prompt=2), 2, False),
        (changed(free(), "training", max_new_tokens=2), 2, False),
        (changed(free(), "training", steps=3), 2, False),
        (changed(free(), "grpo", temperature=0.5), 2, False),
        (changed(free(), "task", options={"digits": 2.0}), 2, False),
    ],
)
def test_what_a_gradient_depends_on_measures_again(other: RunSpec, batches: int, shared: bool) -> None:
    known, measured = BaseGradients(), iter([FirstGradient(torch.zeros(1), {}), FirstGradient(torch.ones(1), {})])
    first = known.of(free(), 2, lambda: next(measured))
    assert (known.of(other, batches, lambda: next(measured)) is first) == shared


def test_without_bits_a_chosen_projection_is_the_random_one() -> None:
    none = execute(chosen_spec("sft", bits=0), "cpu")
    random = chosen_spec("sft")
    random = random.model_copy(update={"adapter": TinyLora(groups=7, u=1, projection_seed=0)})
    plain = execute(random, "cpu")
    assert [step.loss for step in none.steps] == [step.loss for step in plain.steps]
    assert none.result.update_bytes == plain.result.update_bytes
    assert none.artifact is not None
    assert artifact.read(none.artifact, "u").recipe.adapter.choice == ProjectionChoice(bits=0, batches=2)


def test_the_chosen_directions_have_the_energies_of_the_record() -> None:
    """The squared gradient of each entry of v at θ = 0 is the energy that chose its P."""
    base = tiny("llama")

    def gradient(adapter: Any, layout: Layout) -> torch.Tensor:
        adapted = attach(copy.deepcopy(base), adapter, None, layout=layout)
        adapted.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
        (theta,) = adapted.trained.values()
        assert theta.grad is not None
        return theta.grad.double().flatten()

    shapes = attach(copy.deepcopy(base), LoraXs(rank=2), None).shapes
    free = gradient(LoraXs(rank=2), Layout()).view(14, 2, 2).numpy()
    group = [0] * 7 + [1] * 7
    found = best_candidates(free, [s.name for s in shapes], group, (1, 1), seed=4, bits=6)
    adapter = TinyLora(rank=2, groups=2, u=1, projection_seed=4, choice=ProjectionChoice(bits=6))
    squared = gradient(adapter, Layout(candidates=found.numbers)).square()
    np.testing.assert_allclose(squared.numpy(), found.energies, rtol=1e-4)


@pytest.mark.parametrize(("method", "by"), [("grpo", "grpo"), ("sft", "own")])
def test_a_run_takes_the_best_of_all_candidates_by_brute_force(method: Any, by: Any) -> None:
    """Every candidate is put on the model, and the loss of the run's first batches is differentiated by θ at 0."""
    spec = chosen_spec(method, by=by)
    base, task = Base.loaded(spec.model, "cpu"), open_task(spec.task)

    def squared(number: int) -> torch.Tensor:
        adapted = base.adapted(spec.adapter, Layout(candidates=(number,) * 7))
        arm, schedule = next(phases(adapted, base.tokenizer, task, spec, Recorder([], Cost())))
        for start in (0, 4):
            items = [item for item in schedule[start : start + 4] for _ in range(4)]
            torch.autograd.backward(arm.loss(arm.batch(items)))
        (theta,) = adapted.trained.values()
        assert theta.grad is not None
        return (theta.grad.double().flatten() / 2).square()

    energies = torch.stack([squared(number) for number in range(16)])
    choice = execute(spec, "cpu").result.choice
    assert choice is not None
    assert choice.candidates == tuple(energies.argmax(0).tolist())
    np.testing.assert_allclose(choice.energies, energies.max(0).values.numpy(), rtol=1e-3)


# Options


def test_rates_of_a_random_projection_serve_a_chosen_one_until_it_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = tuned_rate("abacus-0.9m", TASK, "grpo", "tinylora-chosen", 40)
    assert (own.borrowed, own.tuned_at) == (False, 28)
    without = tuple(row for row in shipped() if row["adapter"] != "tinylora-chosen")
    monkeypatch.setattr("capacity.plan.rates.shipped", lambda: without)
    random, borrowed = (tuned_rate("abacus-3m", TASK, "grpo", kind, 13) for kind in ("tinylora", "tinylora-chosen"))
    assert (random.learning_rate, random.borrowed, borrowed.borrowed) == (borrowed.learning_rate, False, True)
    (remark,) = rate_remarks({"grpo": borrowed})
    assert remark.startswith(f"The rates grpo {borrowed.learning_rate:g} were tuned with a random projection")


def test_options_become_the_spec() -> None:
    size = within("abacus-0.9m", "13", projection="chosen", projection_bits=12, projection_by="own")
    assert size.adapter(3).choice == ProjectionChoice(bits=12, by="own")
    assert within("abacus-0.9m", "13", projection="chosen").adapter(0).choice == ProjectionChoice(bits=12)
    assert within("abacus-0.9m", "13").adapter(0).choice is None


def test_a_budget_in_bytes_has_room_for_the_choice() -> None:
    assert size_of("abacus-0.9m", SizeChoice(budget="46B", projection="chosen"), "bf16").trained_parameters == 13
    assert size_of("abacus-0.9m", SizeChoice(budget="45B", projection="chosen"), "bf16").trained_parameters == 12


def test_a_plan_counts_the_choice() -> None:
    plan = capacity.plan_update("abacus-0.9m", SizeChoice(budget="13", projection="chosen")).to_json()
    assert plan["update_bytes"]["bf16"] == 46
    assert (plan["projection"], plan["projection_bits"], plan["projection_by"]) == ("chosen", 12, "grpo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection_bits": 8}, "--projection-bits goes with --projection chosen"),
        ({"projection_by": "own"}, "--projection-by goes with --projection chosen"),
        ({"projection": "chosen", "projection_bits": 17}, "--projection-bits 17 is outside 0 … 16"),
        ({"projection": "chosne"}, "unknown projection 'chosne': did you mean chosen?"),
        ({"projection": "chosen", "projection_by": "sft"}, "unknown method 'sft'"),
        ({"projection": "chosen", "adapter": "lora"}, "adapter lora takes no --projection"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        size_of("abacus-0.9m", SizeChoice(budget="100", **options), "bf16")


def test_a_random_projection_keeps_the_identity_of_its_runs() -> None:
    spec = small_spec("grpo")
    assert "choice" not in spec.canonical_json()
    assert spec.identity != chosen_spec("grpo").identity


def test_parts_may_be_chosen_too() -> None:
    assert chosen("abacus-0.9m", "tinylora", groups=7, u=2, projection="chosen").adapter(0).choice is not None
