"""Cells: specs that differ in seeds alone are in one cell, and no others are."""

import copy
from typing import Any

import fakes
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.runs.cell import Cell, apart_from, cell_of, cells, labels, seeds_of, telling, without
from capacity.spec.methods import METHODS
from capacity.spec.run import RunSpec

ADAPTERS: dict[str, dict[str, Any]] = {
    "tinylora": {"kind": "tinylora", "u": 1, "groups": 13, "projection_seed": 0},
    "lora-xs": {"kind": "lora-xs", "rank": 2},
    "lora": {"kind": "lora", "rank": 2, "init_seed": 0},
    "vera": {"kind": "vera", "rank": 2, "projection_seed": 0},
    "vb-lora": {"kind": "vb-lora", "rank": 2, "vectors": 8, "vector_length": 4, "init_seed": 0},
    "uni-lora": {"kind": "uni-lora", "rank": 2, "length": 64, "projection_seed": 0},
    "steering": {"kind": "steering"},
    "bitfit": {"kind": "bitfit"},
    "full": {"kind": "full"},
}
# Another value for every field of a spec that is not a seed; fields that other fields decide come with them.
CHANGES: list[dict[str, Any]] = [
    {"model": "abacus-3m"},
    {"task.name": "gsm8k"},
    {"task.demonstrations": "own"},
    {"task.options.style_bits": 5.0},
    {"task.options.style_shift": 0.0},
    {"storage_dtype": "fp32"},
    {"adapter.rank": 3},
    {"adapter.u": 2},
    {"adapter.groups": 14},
    {"adapter.sharing": "structured"},
    {"adapter.scaling": "split"},
    {"adapter.allocation": "gradient"},
    {"adapter.allocation_batches": 5},
    {"adapter.targets": ["q_proj"]},
    {"training.match": "sequences"},
    {"training.match": "tokens", "training.tokens_per_step": 100},
    {"training.steps": 3},
    {"training.prompts_per_step": 4},
    {"training.samples_per_prompt": 5},
    {"training.max_new_tokens": 25},
    {"training.learning_rate": 0.02},
    {"training.warmup_steps": 0},
    {"training.adam_beta1": 0.8},
    {"training.adam_beta2": 0.9},
    {"training.adam_epsilon": 1e-7},
    {"training.max_grad_norm": 2.0},
    {"evaluation.split": "validation"},
    {"evaluation.items": 5},
    {"evaluation.samples_per_item": 2},
    {"evaluation.temperature": 0.5},
    {"evaluation.max_new_tokens": 25},
    {"evaluation.seed": 1},
    {"grpo.temperature": 0.5},
    {"grpo.epsilon": 0.3},
    {"grpo.advantage_epsilon": 1e-3},
    {"rft.temperature": 0.5},
    {"warm_start.learning_rate": 0.004},
    {"rollouts": {"sync": "merged"}},
    {"rollouts": {"dtype": "bf16"}},
    {"rollouts": {"correction": "none"}},
    {"rollouts": {"cap": 3.0}},
    {"rollouts": {"kl_warning": 0.1}},
]
FIXED = {"schema_version", "training.schedule", "grpo.loss", "grpo.scale_rewards", "grpo.kl_to_base_weight",
         "rollouts.engine", "adapter.kind", "method"}  # fmt: skip


def changed(raw: dict[str, Any], change: dict[str, Any]) -> dict[str, Any] | None:
    """The raw spec with these fields changed; None if it has no such part."""
    raw = copy.deepcopy(raw)
    for path, value in change.items():
        *parts, name = path.split(".")
        place = raw
        for part in parts:
            place = place.get(part)
            if place is None:
                return None
        if parts and parts[0] in ("adapter", "task") and name not in place and place is not raw["adapter"]:
            return None
        if path in ("task.demonstrations",) and place[name] == "none":
            return None
        place[name] = value
    return raw


@st.composite
def raw_specs(draw: st.DrawFn) -> dict[str, Any]:
    method = draw(st.sampled_from(list(METHODS)))
    raw = fakes.raw_spec(method, temperature=draw(st.sampled_from([0.0, 1.0])))
    if raw["training"] is not None:
        raw["adapter"] = dict(draw(st.sampled_from(list(ADAPTERS.values()))))
        raw["training"]["learning_rate"] = draw(st.sampled_from([0.001, 0.01]))
    return raw


def reseeded(raw: dict[str, Any], seed: int, part: int) -> dict[str, Any]:
    adapter = {name: part if name.endswith("_seed") else value for name, value in raw["adapter"].items()}
    return {**raw, "seed": seed, "adapter": adapter}


@unhurried
@given(raw_specs(), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**31))
def test_specs_that_differ_in_seeds_alone_are_in_one_cell(raw: Any, seed: int, part: int, other: int) -> None:
    first, second = (RunSpec.model_validate(reseeded(raw, *s)) for s in ((seed, part), (other, seed)))
    assert cell_of(first) == cell_of(second)
    assert cell_of(first).identity == cell_of(second).identity
    assert cell_of(first).differs(cell_of(second)) == {}


@unhurried
@given(raw_specs(), st.sampled_from(CHANGES), st.integers(0, 5), st.integers(0, 5))
def test_specs_that_differ_in_anything_else_are_in_different_cells(
    raw: Any, change: Any, seed: int, other: int
) -> None:
    another = changed(raw, change)
    if another is None:
        return
    try:
        first = RunSpec.model_validate(reseeded(raw, seed, seed))
        second = RunSpec.model_validate(reseeded(another, other, other))
    except ValueError:  # a field that this adapter or method does not have
        return
    assert cell_of(first) != cell_of(second)
    # Where rollouts begin, their defaults differ too.
    told = set(cell_of(first).differs(cell_of(second)))
    assert told
    assert set(change) <= {name.partition(".")[0] if "rollouts" in change else name for name in told}


@unhurried
@given(raw_specs(), *[st.sampled_from([None, "a" * 64, "b" * 64])] * 2, st.integers(0, 5), st.integers(0, 5))
def test_runs_on_different_bases_are_in_different_cells(
    raw: Any, base: str | None, another: str | None, seed: int, other: int
) -> None:
    """The name of a model is part of its spec, but the weights under that name may have changed."""
    first, second = (
        cell_of(RunSpec.model_validate(reseeded(raw, s, s)), b) for s, b in ((seed, base), (other, another))
    )
    assert (first == second) == (first.identity == second.identity) == (base == another)
    assert list(first.differs(second)) == ([] if base == another else ["base"])
    assert first.apart_from("base") == second.apart_from("base")


def test_a_base_is_told_only_where_the_model_does_not_tell_it() -> None:
    specs = {name: RunSpec.model_validate({**fakes.raw_spec("sft"), "model": name}) for name in ("one", "two")}
    one, other = cell_of(specs["one"], "a" * 64), cell_of(specs["one"], "b" * 64)
    assert telling([one, cell_of(specs["two"], "b" * 64)]) == ("model",)
    assert telling([one, other]) == ("base",)
    assert telling([one, other, cell_of(specs["two"], "c" * 64)]) == ("base", "model")
    assert labels({one: "sft", other: "sft"}) == {one: f"base {'a' * 16}", other: f"base {'b' * 16}"}


def leaves(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {leaf for name, inner in value.items() for leaf in leaves(inner, f"{path}.{name}" if path else name)}
    return {path}


def test_every_field_of_a_spec_takes_part_in_the_property_above() -> None:
    """A field that a later schema adds must be added to `CHANGES` too."""
    fields: set[str] = set()
    for method in METHODS:
        for adapter in [{"kind": "none"}] if method == "base" else ADAPTERS.values():
            raw = {**fakes.raw_spec(method), "adapter": dict(adapter)}
            if method != "base" and adapter["kind"] == "tinylora":
                raw["rollouts"] = {}
            fields |= leaves(RunSpec.model_validate(raw).model_dump(mode="json"))
    tried = {name for change in CHANGES for name in change}
    tried |= {f"rollouts.{name}" for change in CHANGES for name in change.get("rollouts", {})}
    seeds = {name for name in fields if name == "seed" or name.endswith("_seed")}
    absent = {"training", "grpo", "rft", "warm_start"}  # parts that a method does not have
    sizes = {"adapter.vectors", "adapter.vector_length", "adapter.topk", "adapter.length", "adapter.blocks"}
    assert fields - tried - seeds - absent == FIXED | sizes


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("vb-lora", "vectors", 9),
        ("vb-lora", "vector_length", 8),
        ("vb-lora", "topk", 3),
        ("uni-lora", "length", 65),
        ("steering", "blocks", [0, 3]),
    ],
)
def test_sizes_of_single_kinds_make_other_cells(kind: str, field: str, value: int) -> None:
    raw = {**fakes.raw_spec("sft"), "adapter": ADAPTERS[kind]}
    first = cell_of(RunSpec.model_validate(raw))
    second = cell_of(RunSpec.model_validate(changed(raw, {f"adapter.{field}": value})))
    assert list(first.differs(second)) == [f"adapter.{field}"]
    assert first.apart_from("adapter") == second.apart_from("adapter")
    assert first.apart_from("training") != second.apart_from("training")


def test_a_recipe_is_left_without_fields_and_whole_parts_but_not_without_their_likes() -> None:
    recipe = {"training.steps": 3, "training.match": "prompts", "trained": 1, "model": "m"}
    assert without(recipe, "training.steps", "model") == {"training.match": "prompts", "trained": 1}
    assert without(recipe, "training") == {"trained": 1, "model": "m"}
    assert apart_from(recipe, "training", "trained") == '{"model":"m"}'


def test_methods_and_adapters_make_other_cells() -> None:
    methods = {cell_of(fakes.spec(method)) for method in METHODS}
    kinds = {cell_of(RunSpec.model_validate({**fakes.raw_spec("sft"), "adapter": a})) for a in ADAPTERS.values()}
    assert len(methods) == len(METHODS)
    assert len(kinds) == len(ADAPTERS)


def test_runs_are_grouped_in_order_and_by_seed() -> None:
    specs = [fakes.spec(method, seed) for method in ("grpo", "sft") for seed in (2, 0, 1)]
    found = cells(specs, cell_of)
    assert [cell.spec.method for cell in found] == ["grpo", "sft"]
    assert [[spec.seed for spec in members] for members in found.values()] == [[0, 1, 2]] * 2
    assert repr(next(iter(found))) == "Cell('grpo 13')"


def with_fields(method: str, **changes: Any) -> Cell:
    """A cell with fields changed; their dots are written as two underscores."""
    raw = changed(fakes.raw_spec(method), {name.replace("__", "."): value for name, value in changes.items()})
    return cell_of(RunSpec.model_validate(raw))


def test_cells_tell_the_fields_in_which_any_two_of_them_differ() -> None:
    plain, longer = with_fields("sft"), with_fields("sft", training__steps=3)
    spread = with_fields("sft", training__match="sequences", adapter__targets=["q_proj", "v_proj"])
    assert telling([plain, longer]) == ("training.steps",)
    assert telling([plain, longer, spread]) == ("adapter.targets", "training.match", "training.steps")
    assert telling([plain]) == telling([plain, plain]) == telling([]) == ()


def test_a_label_is_what_the_columns_of_a_table_do_not_tell() -> None:
    plain, longer = with_fields("sft"), with_fields("sft", training__steps=3, adapter__targets=["q_proj", "v_proj"])
    engine, other = with_fields("grpo", rollouts={"dtype": "bf16"}), with_fields("grpo", rollouts={"cap": 1e-5 + 1})
    found = labels({cell: cell.spec.method for cell in (plain, engine, longer, other)})
    assert found == {
        plain: "adapter.targets unset, training.steps 2",
        longer: "adapter.targets q_proj+v_proj, training.steps 3",
        engine: "rollouts.cap 2, rollouts.dtype bf16",
        other: "rollouts.cap 1.00001, rollouts.dtype unset",
    }
    assert set(labels({cell: cell.identity for cell in (plain, longer)}).values()) == {""}


def test_runs_of_a_cell_are_told_apart_by_the_seeds_of_run_and_adapter() -> None:
    def with_seeds(kind: str, seed: int, part: int) -> RunSpec:
        return RunSpec.model_validate(reseeded({**fakes.raw_spec("sft"), "adapter": ADAPTERS[kind]}, seed, part))

    specs = [with_seeds("tinylora", *seeds) for seeds in ((1, 0), (0, 1), (1, 1), (0, 0))]
    (members,) = cells(specs, cell_of).values()
    assert [seeds_of(spec) for spec in members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert seeds_of(with_seeds("vb-lora", 2, 3)) == (2, 3)
    assert [seeds_of(with_seeds(kind, 2, 3)) for kind in ("lora-xs", "full")] == [(2, 2)] * 2
    assert seeds_of(fakes.spec("base", 4)) == (4, 4)


def test_a_cell_keeps_its_name() -> None:
    """Points tables store it, so it may only move with the schema of specs."""
    assert isinstance(cell_of(fakes.spec("sft", 7)), Cell)
    assert cell_of(fakes.spec("sft", 7)).identity == cell_of(fakes.spec("sft", 8)).identity
