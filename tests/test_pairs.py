import pytest

from capacity.adapters.budget import Budget
from capacity.config import (
    BitFit,
    FullUpdate,
    Lora,
    LoraXs,
    TaskSpec,
    TinyLora,
    UniLora,
    VbLora,
    Vera,
)
from capacity.errors import BudgetError, SpecError
from capacity.training.pairs import compare_specs, size_from_budget, size_from_choice, trained_spec
from capacity.training.rates import size_class, tuned_rate
from capacity.training.sizes import DECIDED_BY_BUDGET, OPTIONS, SizeChoice, size_of

MODEL = "abacus-0.9m"
TASK = TaskSpec(name="abacus", demonstrations="worked")


@pytest.mark.parametrize(
    ("options", "spec", "count"),
    [
        ({"adapter": "tinylora"}, TinyLora(rank=2, u=1, groups=28, projection_seed=7), 28),
        (
            {
                "adapter": "tinylora",
                "rank": 3,
                "u": 5,
                "n_tie": 4,
                "sharing": "structured",
                "scaling": "split",
                "allocation": "gradient",
            },
            TinyLora(
                rank=3,
                u=5,
                groups=7,
                sharing="structured",
                scaling="split",
                allocation="gradient",
                projection_seed=7,
            ),
            35,
        ),
        ({"adapter": "lora-xs", "rank": 8, "scaling": "split"}, LoraXs(rank=8, scaling="split"), 1792),
        ({"adapter": "lora"}, Lora(rank=2, init_seed=7), 20_480),
        ({"adapter": "vera"}, Vera(rank=256, projection_seed=7), 12_800),
        ({"adapter": "vb-lora"}, VbLora(rank=4, vectors=256, vector_length=128, init_seed=7), 114_688),
        (
            {"adapter": "vb-lora", "rank": 1, "vectors": 3, "vector_length": 64},
            VbLora(rank=1, vectors=3, vector_length=64, init_seed=7),
            3 * 64 + 3 * 160,
        ),
        ({"adapter": "uni-lora"}, UniLora(rank=4, length=256, projection_seed=7), 256),
        ({"adapter": "uni-lora", "length": 13}, UniLora(rank=4, length=13, projection_seed=7), 13),
        ({"adapter": "bitfit"}, BitFit(), 1536),
        ({"adapter": "full"}, FullUpdate(), 859_776),
    ],
)
def test_every_choice_becomes_its_spec(options, spec, count):
    size = size_from_choice(MODEL, **options)
    assert size.adapter(7) == spec
    assert size.solution.trained_parameters == count


@pytest.mark.parametrize("adapter", OPTIONS)
def test_budget_of_a_named_adapter_takes_the_largest_that_fits(adapter):
    size = size_from_budget(MODEL, Budget.parse("2MiB"), "bf16", adapter=adapter)
    assert size.solution.adapter == adapter == size.adapter(0).kind
    assert 0 < size.solution.trained_parameters <= 2**20


def test_budget_without_an_adapter_goes_from_tinylora_to_full():
    kinds = [size_from_budget(MODEL, Budget.parse(b), "bf16").adapter(0).kind for b in ("100", "1000", "700000")]
    assert kinds == ["tinylora", "lora-xs", "lora"]
    assert size_from_budget(MODEL, Budget.parse("859776"), "bf16").adapter(0) == FullUpdate()


def test_budget_100_on_the_embedded_model_keeps_its_spec():
    expected = TinyLora(rank=2, u=3, groups=28, projection_seed=0)
    assert size_from_budget(MODEL, Budget.parse("100"), "bf16", "tiled", 2).adapter(0) == expected


def test_targets_are_kept_in_the_order_of_the_model():
    size = size_from_choice(MODEL, "lora-xs", targets=("v_proj", "q_proj", "v_proj"))
    assert size.adapter(0) == LoraXs(rank=2, targets=("q_proj", "v_proj"))
    assert size.solution.trained_parameters == 8 * 4


def test_targets_that_name_every_type_are_no_choice():
    types = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert size_from_choice(MODEL, "lora", targets=types) == size_from_choice(MODEL, "lora")


def test_groups_are_those_of_the_targets():
    size = size_from_choice(MODEL, "tinylora", targets=("q_proj", "v_proj"))
    assert size.solution.groups == 8 == len(size.group_of_module)
    with pytest.raises(SpecError, match="9 groups are outside 1 … 8"):
        size_from_choice(MODEL, "tinylora", targets=("q_proj", "v_proj"), groups=9)


def test_mixture_of_experts_can_be_planned_in_full_and_with_targets(tmp_path):
    config = (
        '{"model_type": "mixtral", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 32, '
        '"num_hidden_layers": 2, "num_attention_heads": 8, "num_local_experts": 2}'
    )
    (tmp_path / "config.json").write_text(config)
    model = str(tmp_path)
    whole = size_from_choice(model, "full").solution.trained_parameters
    assert whole > 2 * 2 * 3 * 64 * 32
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert size_from_budget(model, Budget.parse("8"), "bf16", targets=targets).adapter(0) == TinyLora(
        rank=2, u=1, groups=8, targets=targets, projection_seed=0
    )
    with pytest.raises(SpecError, match="mixtral keeps its experts in fused tensors"):
        size_from_budget(model, Budget.parse("8"), "bf16")


VALUES = {
    "rank": 3,
    "u": 1,
    "groups": 7,
    "n_tie": 4,
    "vectors": 5,
    "vector_length": 64,
    "length": 9,
    "targets": ("q_proj",),
    "sharing": "structured",
    "scaling": "split",
    "allocation": "gradient",
}


@pytest.mark.parametrize("adapter", OPTIONS)
@pytest.mark.parametrize("option", VALUES)
def test_option_is_taken_or_refused_but_never_ignored(adapter, option):
    options = {option: VALUES[option]}
    flag = "--" + option.replace("_", "-")
    if option not in OPTIONS[adapter]:
        with pytest.raises(SpecError, match=f"adapter {adapter} takes no {flag}: it "):
            size_from_choice(MODEL, adapter, **options)
        return
    if option in ("u", "groups") and adapter == "tinylora":
        assert getattr(size_from_choice(MODEL, adapter, **options).adapter(0), option) == VALUES[option]
    else:
        assert size_from_choice(MODEL, adapter, **options).adapter(0) != size_from_choice(MODEL, adapter).adapter(0)
    choice = SizeChoice(budget=Budget.parse("2MiB"), adapter=adapter, **options)
    if option in DECIDED_BY_BUDGET[adapter]:
        with pytest.raises(SpecError, match=f"give --budget, or {flag}, not both"):
            size_of(MODEL, choice, "bf16")
    else:
        assert size_of(MODEL, choice, "bf16") != size_from_budget(MODEL, Budget.parse("2MiB"), "bf16", adapter=adapter)


@pytest.mark.parametrize("option", ["u", "groups", "n_tie", "vectors", "length"])
def test_budget_and_a_part_of_some_adapter_exclude_each_other(option):
    choice = SizeChoice(budget=Budget.parse("100"), **{option: VALUES[option]})
    with pytest.raises(SpecError, match="give --budget, or --"):
        size_of(MODEL, choice, "bf16")


@pytest.mark.parametrize("option", ["sharing", "allocation", "vector_length"])
def test_option_that_the_solver_would_ignore_is_refused(option):
    choice = SizeChoice(budget=Budget.parse("1000"), **{option: VALUES[option]})
    with pytest.raises(SpecError, match="the largest update within this budget is lora-xs, which takes no --"):
        size_of(MODEL, choice, "bf16")


def test_targets_do_not_go_with_a_budget_of_the_whole_model():
    with pytest.raises(SpecError, match="is full, which takes no --targets"):
        size_from_budget(MODEL, Budget.parse("859776"), "bf16", targets=("q_proj",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": "lora-xs", "rank": 129}, "rank 129 is outside 1 … 128 on abacus-0.9m"),
        ({"adapter": "lora", "rank": 0}, "rank 0 is outside 1 … 128"),
        ({"adapter": "vera", "rank": 0}, "rank 0 is below 1"),
        ({"adapter": "vb-lora", "vectors": 1}, "a bank of 1 vectors is below 2"),
        ({"adapter": "vb-lora", "vector_length": 100}, "does not divide both sides of model.layers.0.self_attn.q_proj"),
        ({"adapter": "uni-lora", "length": 0}, "length 0 is outside 1 … 40,960"),
        ({"adapter": "lroa"}, "unknown adapter 'lroa': did you mean lora"),
        ({"adapter": "lora", "targets": ("qproj",)}, "unknown module type 'qproj': did you mean q_proj"),
    ],
)
def test_choice_that_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(SpecError) as refused:
        size_from_choice(MODEL, **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_named_adapter_above_its_budget_names_its_size():
    for adapter, size in (("full", "859,776"), ("bitfit", "1,536"), ("lora", "10,240")):
        with pytest.raises(BudgetError, match=f"too small for adapter {adapter}, which .* {size} on this model"):
            size_from_budget(MODEL, Budget.parse("100"), "bf16", adapter=adapter)


def test_llama_has_no_bitfit():
    with pytest.raises(SpecError, match="this model has no biases"):
        size_from_choice("llama-3.1-8b", "bitfit")


def test_runs_of_a_pair_have_one_adapter_and_each_seed_its_own():
    size = size_from_choice(MODEL, "uni-lora", length=13)
    specs = compare_specs(MODEL, TASK, ("sft", "grpo"), size, 2, "int4", {"sft": 0.1, "grpo": 0.2})
    trained = {(s.method, s.seed): s for s in specs if s.training}
    assert [trained["sft", n].adapter for n in range(2)] == [trained["grpo", n].adapter for n in range(2)]
    assert [trained["sft", n].adapter.projection_seed for n in range(2)] == [0, 1]
    assert {s.storage_dtype for s in trained.values()} == {"int4"}


@pytest.mark.parametrize(
    ("adapter", "count", "expected"),
    [
        ("tinylora", 9, "1-9"),
        ("tinylora", 10, "10-99"),
        ("lora-xs", 112, "lora-xs 100-999"),
        ("uni-lora", 13, "uni-lora 10-99"),
        ("tinylora-split", 13, "tinylora-split 10-99"),
        ("bitfit", 1536, "bitfit"),
        ("full", 859_776, "full"),
    ],
)
def test_class_of_tuned_rates(adapter, count, expected):
    assert size_class(adapter, count) == expected


def test_tuned_rate_of_tinylora_is_not_lent_to_other_adapters_or_to_the_split():
    spec = trained_spec(MODEL, TASK, "grpo", size_from_choice(MODEL, "tinylora"), 0, "bf16")
    assert spec.training.learning_rate == tuned_rate(MODEL, TASK, "grpo", "tinylora", 28).learning_rate
    others = [size_from_choice(MODEL, "uni-lora", length=28), size_from_choice(MODEL, "tinylora", scaling="split")]
    for size in others:
        with pytest.raises(SpecError, match=r"no tuned learning rate for grpo of size .* 10-99 .*--learning-rates"):
            trained_spec(MODEL, TASK, "grpo", size, 0, "bf16")
        assert trained_spec(MODEL, TASK, "grpo", size, 0, "bf16", rate=0.5).training.learning_rate == 0.5
