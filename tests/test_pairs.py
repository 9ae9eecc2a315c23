import pytest
from sizes import chosen, within

from capacity.errors import BudgetError, SpecError
from capacity.plan import rates
from capacity.plan.kinds.table import KINDS
from capacity.plan.protocols import PROTOCOLS
from capacity.plan.rates import parse_rates, tuned_rate
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import (
    base_spec,
    base_specs,
    compare_specs,
    parse_methods,
    trained_spec,
)
from capacity.spec.adapters import BitFit, FullUpdate, Lora, LoraXs, TinyLora, UniLora, VbLora, Vera
from capacity.spec.methods import METHODS, TRAINED
from capacity.spec.parts import TaskSpec

MODEL = "abacus-0.9m"
TASK = TaskSpec(name="abacus", demonstrations="worked", options={"style_bits": 4.0, "style_shift": 4.0})
ALL_RATES = dict.fromkeys(METHODS, 0.01)


@pytest.mark.parametrize(
    ("options", "spec", "count"),
    [
        ({"adapter": "tinylora"}, TinyLora(rank=8, u=1, groups=28, projection_seed=7), 28),
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
        ({"adapter": "full"}, FullUpdate(), 861_952),
    ],
)
def test_every_choice_becomes_its_spec(options, spec, count):
    size = chosen(MODEL, **options)
    assert size.adapter(7) == spec
    assert size.trained_parameters == count


@pytest.mark.parametrize("adapter", KINDS)
def test_budget_of_a_named_adapter_takes_the_largest_that_fits(adapter):
    size = within(MODEL, "2MiB", adapter=adapter)
    assert size.kind == adapter == size.adapter(0).kind
    assert 0 < size.trained_parameters <= 2**20


def test_budget_without_an_adapter_goes_from_tinylora_to_full():
    kinds = [within(MODEL, b).adapter(0).kind for b in ("100", "2000", "8000", "700000")]
    assert kinds == ["tinylora", "tinylora", "lora-xs", "lora"]
    assert within(MODEL, "861952").adapter(0) == FullUpdate()


def test_budget_100_on_the_embedded_model_keeps_its_spec():
    expected = TinyLora(rank=8, u=3, groups=28, projection_seed=0)
    assert within(MODEL, "100").adapter(0) == expected


def test_targets_are_kept_in_the_order_of_the_model():
    size = chosen(MODEL, "lora-xs", targets=("v_proj", "q_proj", "v_proj"))
    assert size.adapter(0) == LoraXs(rank=2, targets=("q_proj", "v_proj"))
    assert size.trained_parameters == 8 * 4


def test_targets_that_name_every_type_are_no_choice():
    types = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert chosen(MODEL, "lora", targets=types) == chosen(MODEL, "lora")


def test_groups_are_those_of_the_targets():
    size = chosen(MODEL, "tinylora", targets=("q_proj", "v_proj"))
    assert size.template.groups == 8 == len(size.group_of_module)
    with pytest.raises(SpecError, match="9 groups are outside 1 … 8"):
        chosen(MODEL, "tinylora", targets=("q_proj", "v_proj"), groups=9)


def test_mixture_of_experts_can_be_planned_in_full_and_with_targets(tmp_path):
    config = (
        '{"model_type": "mixtral", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 32, '
        '"num_hidden_layers": 2, "num_attention_heads": 8, "num_local_experts": 2}'
    )
    (tmp_path / "config.json").write_text(config)
    model = str(tmp_path)
    whole = chosen(model, "full").trained_parameters
    assert whole > 2 * 2 * 3 * 64 * 32
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert within(model, "8", targets=targets).adapter(0) == TinyLora(
        rank=2, u=1, groups=8, targets=targets, projection_seed=0
    )
    with pytest.raises(SpecError, match="mixtral keeps its experts in fused tensors"):
        within(model, "8")


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


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("option", VALUES)
def test_option_is_taken_or_refused_but_never_ignored(adapter, option):
    options = {option: VALUES[option]}
    flag = "--" + option.replace("_", "-")
    if option not in KINDS[adapter].options:
        with pytest.raises(SpecError, match=f"adapter {adapter} takes no {flag}: it "):
            chosen(MODEL, adapter, **options)
        return
    if option in ("u", "groups") and adapter == "tinylora":
        assert getattr(chosen(MODEL, adapter, **options).adapter(0), option) == VALUES[option]
    else:
        assert chosen(MODEL, adapter, **options).adapter(0) != chosen(MODEL, adapter).adapter(0)
    choice = SizeChoice(budget="2MiB", adapter=adapter, **options)
    if option in KINDS[adapter].decided:
        with pytest.raises(SpecError, match=f"give --budget, or {flag}, not both"):
            size_of(MODEL, choice, "bf16")
    else:
        assert size_of(MODEL, choice, "bf16") != within(MODEL, "2MiB", adapter=adapter)


@pytest.mark.parametrize("option", ["u", "groups", "n_tie", "vectors", "length"])
def test_budget_and_a_part_of_some_adapter_exclude_each_other(option):
    choice = SizeChoice(budget="100", **{option: VALUES[option]})
    with pytest.raises(SpecError, match="give --budget, or --"):
        size_of(MODEL, choice, "bf16")


@pytest.mark.parametrize("option", ["sharing", "allocation", "vector_length"])
def test_option_that_the_solver_would_ignore_is_refused(option):
    choice = SizeChoice(budget="8000", **{option: VALUES[option]})
    with pytest.raises(SpecError, match="the largest update within this budget is lora-xs, which takes no --"):
        size_of(MODEL, choice, "bf16")


def test_targets_do_not_go_with_a_budget_of_the_whole_model():
    with pytest.raises(SpecError, match="is full, which takes no --targets"):
        within(MODEL, "861952", targets=("q_proj",))


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
        chosen(MODEL, **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_named_adapter_above_its_budget_names_its_size():
    for adapter, size in (("full", "861,952"), ("bitfit", "1,536"), ("lora", "10,240")):
        with pytest.raises(BudgetError, match=f"too small for adapter {adapter}, which .* {size} on this model"):
            within(MODEL, "100", adapter=adapter)


def test_llama_has_no_bitfit():
    with pytest.raises(SpecError, match="this model has no biases"):
        chosen("llama-3.1-8b", "bitfit")


def test_runs_of_a_pair_have_one_adapter_and_each_seed_its_own():
    size = chosen(MODEL, "uni-lora", length=13)
    specs = compare_specs(MODEL, TASK, ("sft", "grpo"), size, 2, "int4", {"sft": 0.1, "grpo": 0.2})
    trained = {(s.method, s.seed): s for s in specs if s.training}
    assert [trained["sft", n].adapter for n in range(2)] == [trained["grpo", n].adapter for n in range(2)]
    assert [trained["sft", n].adapter.projection_seed for n in range(2)] == [0, 1]
    assert {s.storage_dtype for s in trained.values()} == {"int4"}


def row(method, adapter, count, rate, *, demonstrations="none", edge=False):
    return {
        "model": MODEL, "task": "abacus", "method": method, "demonstrations": demonstrations, "adapter": adapter,
        "trained_parameters": count, "learning_rate": rate, "at_edge": edge,
    }  # fmt: skip


@pytest.fixture
def table(monkeypatch):
    """A small table of tuned rates instead of the shipped one."""
    table = [
        row("grpo", "tinylora", 1, 0.1, edge=True),
        row("grpo", "tinylora", 100, 0.2),
        row("grpo", "full", 861_952, 0.3),
        row("rft", "tinylora", 100, 0.4),
        row("sft", "tinylora", 100, 0.5, demonstrations="worked"),
        row("sft", "tinylora", 100, 0.6, demonstrations="own"),
    ]
    monkeypatch.setattr(rates, "shipped", lambda: table)


@pytest.mark.parametrize(
    ("method", "adapter", "count", "rate"),
    [
        ("grpo", "tinylora", 1, 0.1),
        ("grpo", "tinylora", 9, 0.1),
        ("grpo", "tinylora", 11, 0.2),
        ("grpo", "tinylora", 1000, 0.2),
        ("grpo", "full", 861_952, 0.3),
        ("random-reward", "tinylora", 100, 0.2),
        ("rft", "tinylora", 112, 0.4),
        ("rft-online", "tinylora", 112, 0.4),
        ("sft", "tinylora", 13, 0.5),
    ],
)
def test_rate_is_that_of_the_nearest_tuned_size(table, method, adapter, count, rate):
    assert tuned_rate(MODEL, TASK, method, adapter, count).learning_rate == rate


@pytest.mark.parametrize(
    ("method", "adapter", "count"),
    [("grpo", "tinylora", 1001), ("grpo", "uni-lora", 100), ("grpo", "tinylora-split", 100), ("sft", "tinylora", 9),
     ("rft", "full", 861_952)],
)  # fmt: skip
def test_rate_is_lent_neither_far_nor_to_another_adapter_or_method(table, method, adapter, count):
    with pytest.raises(SpecError, match=f"no learning rate is tuned for {method}, .*--learning-rates {method}=RATE"):
        tuned_rate(MODEL, TASK, method, adapter, count)


def test_rate_of_sft_is_that_of_the_style_whatever_its_knobs(table):
    own = TaskSpec(name="abacus", demonstrations="own")
    loud = TaskSpec(name="abacus", demonstrations="worked", options={"style_bits": 8.0, "style_shift": 0.0})
    assert [tuned_rate(MODEL, t, "sft", "tinylora", 100).learning_rate for t in (TASK, loud, own)] == [0.5, 0.5, 0.6]
    assert {tuned_rate(MODEL, t, "grpo", "tinylora", 100).learning_rate for t in (TASK, loud, own)} == {0.2}


def test_rate_at_the_edge_of_those_tried_says_so(table):
    edges = [tuned_rate(MODEL, TASK, "grpo", "tinylora", n).at_edge for n in (1, 100)]
    assert edges == [True, False]


def test_given_rate_wins_over_the_tuned_one(table):
    size = chosen(MODEL, "tinylora")
    assert trained_spec(MODEL, TASK, "grpo", size, 0, "bf16").training.learning_rate == 0.2
    assert trained_spec(MODEL, TASK, "grpo", size, 0, "bf16", rates={"grpo": 0.5}).training.learning_rate == 0.5
    assert trained_spec(MODEL, TASK, "grpo", size, 0, "bf16", rates={"sft": 0.5}).training.learning_rate == 0.2


def test_warm_start_takes_the_rates_of_both_halves(table):
    size = chosen(MODEL, "tinylora")
    spec = trained_spec(MODEL, TASK, "sft+grpo", size, 0, "bf16")
    assert (spec.warm_start.learning_rate, spec.training.learning_rate) == (0.5, 0.2)
    spec = trained_spec(MODEL, TASK, "sft+grpo", size, 0, "bf16", rates={"sft": 0.7})
    assert (spec.warm_start.learning_rate, spec.training.learning_rate) == (0.7, 0.2)


def test_rates_of_halves_can_be_given_where_only_the_whole_runs():
    assert parse_rates("sft=0.1,grpo=0.2", ("sft+grpo",)) == {"sft": 0.1, "grpo": 0.2}
    assert parse_rates("0.1", ("sft+grpo", "rft")) == {"sft": 0.1, "grpo": 0.1, "rft": 0.1}
    assert parse_rates(None, ("sft",)) == {}
    for text in ("sft+grpo=0.1", "rft=0.1", "sft=0.1,sft=0.2", "0.1,sft=0.2"):
        with pytest.raises(SpecError, match="--learning-rates"):
            parse_rates(text, ("sft+grpo",))


@pytest.mark.parametrize("method", TRAINED)
def test_only_methods_that_see_demonstrations_name_them(method):
    spec = trained_spec(MODEL, TASK, method, chosen(MODEL, "tinylora"), 0, "bf16", rates=ALL_RATES)
    assert spec.task == (TASK if method in ("sft", "sft+grpo") else TASK.unseen())
    assert (spec.grpo is not None) == (method in ("grpo", "random-reward", "sft+grpo"))
    assert (spec.rft is not None) == (method in ("rft", "rft-online"))
    assert (spec.warm_start is not None) == (method == "sft+grpo")


@pytest.mark.parametrize("method", TRAINED)
def test_task_without_demonstrations_runs_what_needs_none(method):
    def spec():
        return trained_spec(MODEL, TASK.unseen(), method, chosen(MODEL, "tinylora"), 0, "bf16", rates=ALL_RATES)

    if method in ("sft", "sft+grpo"):
        with pytest.raises(SpecError, match=r"has no demonstrations: sft(\+grpo)? cannot run; choose from grpo, rft"):
            spec()
    else:
        assert spec().task == TASK.unseen()


def test_runs_that_see_no_demonstrations_are_the_same_whatever_their_style():
    size = chosen(MODEL, "tinylora")
    other = TaskSpec(name="abacus", demonstrations="worked", options={"style_bits": 8.0, "style_shift": 1.0})
    planned = [compare_specs(MODEL, t, TRAINED, size, 2, "bf16", ALL_RATES) for t in (TASK, other)]
    ours, theirs = ({s.identity: s.method for s in specs} for specs in planned)
    assert {ours[i] for i in ours.keys() & theirs.keys()} == {"base", "grpo", "rft", "rft-online", "random-reward"}
    assert {ours[i] for i in ours.keys() - theirs.keys()} == {"sft", "sft+grpo"}


def test_base_runs_at_every_temperature_on_test_and_on_validation():
    specs = base_specs(MODEL, TASK)
    temperatures = PROTOCOLS["abacus"].temperatures
    on = {split: [s.evaluation for s in specs if s.evaluation.split == split] for split in ("test", "validation")}
    assert [[e.temperature for e in evaluations] for evaluations in on.values()] == [list(temperatures)] * 2
    assert len({s.identity for s in specs}) == len(specs) == 2 * len(temperatures)
    assert base_spec(MODEL, TASK) in specs


@pytest.mark.parametrize(
    ("match", "tokens", "message"),
    [("tokens", None, "--match tokens needs --tokens-per-step"), ("prompts", 9, "belongs to --match tokens"),
     ("sequences", 9, "belongs to --match tokens, not to sequences")],
)  # fmt: skip
def test_matching_that_cannot_be_is_refused(match, tokens, message):
    with pytest.raises(SpecError, match=message):
        compare_specs(MODEL, TASK, ("grpo",), chosen(MODEL, "tinylora"), 1, "bf16", ALL_RATES, match, tokens)


def test_matching_is_the_same_for_all_arms():
    size = chosen(MODEL, "tinylora")
    for match, tokens in (("prompts", None), ("sequences", None), ("tokens", 700)):
        specs = compare_specs(MODEL, TASK, TRAINED, size, 1, "bf16", ALL_RATES, match, tokens)
        trained = [s.training for s in specs if s.training]
        assert {(t.match, t.tokens_per_step, t.steps, t.samples_per_prompt) for t in trained} == {
            (match, tokens, 80, 8)
        }


def test_methods_are_read_and_base_need_not_be_named():
    assert parse_methods("base, sft,rft-online,sft+grpo") == ("sft", "rft-online", "sft+grpo")
    with pytest.raises(SpecError, match="names no method to train: choose from sft, rft, rft-online, grpo"):
        parse_methods("base")
