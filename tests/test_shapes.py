import json

import pytest
from sizes import chosen

from capacity.errors import DataError, SpecError
from capacity.plan.model_shapes import FAMILIES, shape_from_config
from capacity.plan.models import ALIASES, model_shape, resolve
from capacity.tasks.abacus_language import VOCABULARY

PUBLISHED_PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-math-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
}
ABACUS_PARAMETERS = {"abacus-0.2m": 217_984, "abacus-0.9m": 861_952, "abacus-3m": 3_034_624}
LAYERS = {
    **dict.fromkeys(ABACUS_PARAMETERS, 4),
    "smollm2-135m": 30,
    "qwen2.5-0.5b": 24,
    "qwen2.5-1.5b": 28,
    "qwen2.5-3b": 36,
    "qwen2.5-7b": 28,
    "qwen2.5-math-7b": 28,
    "qwen3-8b": 36,
    "llama-3.2-1b": 16,
    "llama-3.2-3b": 28,
    "llama-3.1-8b": 32,
}


@pytest.mark.parametrize("alias", PUBLISHED_PARAMETERS)
def test_parameters_are_the_published_count(alias):
    assert ALIASES[alias].shape.parameters == PUBLISHED_PARAMETERS[alias]


def test_every_model_has_its_count_and_depth_checked():
    assert set(LAYERS) == set(ALIASES) == {*PUBLISHED_PARAMETERS, *ABACUS_PARAMETERS}


def test_abacus_family_has_three_sizes_one_vocabulary_and_heads_that_serving_engines_take():
    shapes = {alias: ALIASES[alias].shape for alias in ABACUS_PARAMETERS}
    assert {alias: shape.parameters for alias, shape in shapes.items()} == ABACUS_PARAMETERS
    assert {shape.vocabulary for shape in shapes.values()} == {len(VOCABULARY)} == {57}
    assert {shape.head_dim for shape in shapes.values()} == {32}
    assert {shape.family for shape in shapes.values()} == {"abacus"}


@pytest.mark.parametrize("alias", LAYERS)
def test_seven_modules_a_block_are_adapted_in_order_of_depth(alias):
    modules = ALIASES[alias].shape.adapted_modules()
    assert len(modules) == 7 * LAYERS[alias]
    assert [int(m.name.split(".")[2]) for m in modules] == [i for i in range(LAYERS[alias]) for _ in range(7)]
    assert len({m.name for m in modules}) == len(modules)
    types = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert [m.type for m in modules] == types * LAYERS[alias]


def test_grouped_query_shapes_of_llama():
    block = {m.type: (m.d, m.k) for m in ALIASES["llama-3.1-8b"].shape.adapted_modules()[:7]}
    assert block == {
        "q_proj": (4096, 4096),
        "k_proj": (1024, 4096),
        "v_proj": (1024, 4096),
        "o_proj": (4096, 4096),
        "gate_proj": (14336, 4096),
        "up_proj": (14336, 4096),
        "down_proj": (4096, 14336),
    }


def test_lora_of_rank_one_on_llama_8b_has_the_published_count():
    assert chosen("llama-3.1-8b", "lora", rank=1).trained_parameters == 2_621_440


@pytest.mark.parametrize("alias", ALIASES)
def test_full_trains_the_whole_model(alias):
    assert chosen(alias, "full").trained_parameters == ALIASES[alias].shape.parameters


@pytest.mark.parametrize(
    ("alias", "n_tie", "u", "published"),
    [
        ("qwen2.5-7b", 16, 1, 13),
        ("qwen2.5-7b", 4, 1, 49),
        ("qwen2.5-7b", 1, 1, 196),
        ("qwen2.5-7b", 1, 2, 392),
        ("qwen2.5-3b", 16, 1, 16),
        ("qwen2.5-3b", 4, 1, 63),
        ("qwen2.5-3b", 1, 1, 252),
        ("qwen2.5-3b", 1, 2, 504),
    ],
)
def test_small_counts_of_the_paper_follow_from_n_tie_and_u(alias, n_tie, u, published):
    size = chosen(alias, "tinylora", n_tie=n_tie, u=u)
    assert size.trained_parameters == published
    assert size.group_of_module is not None
    assert len(set(size.group_of_module)) * u == published


def test_exactly_one_hundred_parameters_on_28_modules_take_25_groups_of_four():
    size = chosen("abacus-0.9m", "tinylora", u=4, groups=25)
    assert size.trained_parameters == 100


def test_lora_xs_trains_rank_squared_a_module():
    assert chosen("abacus-0.9m", "lora-xs", rank=8).trained_parameters == 1792


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("qwen2.5-3b", "qwen2.5-3b"),
        ("QWEN2.5-3B", "qwen2.5-3b"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen2.5-3b"),
        ("qwen/qwen2.5-math-7b", "qwen2.5-math-7b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("abacus", "abacus-0.9m"),
        ("Abacus", "abacus-0.9m"),
    ],
)
def test_name_in_any_case_hub_id_or_synonym_resolves(name, alias):
    assert resolve(name) == alias


@pytest.mark.parametrize("alias", ALIASES)
def test_every_hub_id_resolves_to_its_own_alias(alias):
    source = ALIASES[alias].source
    if source != "embedded":
        assert resolve(source) == alias


def test_embedded_is_no_model_name():
    with pytest.raises(SpecError, match="unknown model 'embedded'"):
        resolve("embedded")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("qwen2.5-3", "qwen2.5-3b"), ("Lama-3.2-1B", "llama-3.2-1b"), ("abacsu", "abacus")],
)
def test_misspelt_name_is_refused_and_the_nearest_is_offered(name, nearest):
    with pytest.raises(SpecError, match=rf"unknown model '{name}': did you mean .*{nearest}"):
        resolve(name)


def test_name_like_no_other_is_refused_and_all_are_listed():
    with pytest.raises(SpecError, match=r"choose from abacus, abacus-0\.2m, abacus-0\.9m, abacus-3m, llama-3\.1-8b"):
        resolve("zzzz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"u": 65}, "u 65 is outside 1 … 64"),
        ({"u": 0}, "u 0 is outside 1 … 64"),
        ({"rank": 2, "u": 9, "groups": 13}, "u 9 is outside 1 … 8"),
        ({"groups": 0}, "0 groups are outside 1 … 28"),
        ({"n_tie": 0}, "n_tie 0 is outside 1 … 28"),
        ({"groups": 2, "n_tie": 14}, "give one of them"),
        ({"rank": 0}, "rank 0 is outside 1 … 128"),
        ({"rank": 129}, "rank 129 is outside 1 … 128"),
    ],
)
def test_choice_out_of_range_is_refused_with_the_range(options, message):
    with pytest.raises(SpecError, match=message):
        chosen("abacus-0.9m", "tinylora", **options)


@pytest.mark.parametrize("adapter", ["lora", "lora-xs", "full"])
def test_tinylora_options_are_refused_for_other_adapters(adapter):
    with pytest.raises(SpecError, match=f"adapter {adapter} takes no --u: it "):
        chosen("abacus-0.9m", adapter, u=1)


SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
# What must be there, with heads that the number of key-value heads of every configuration class divides.
BARE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "pad_token_id": 0,
}
CONFIGS = [
    *({"model_type": t, **BARE} for t in FAMILIES if t != "gpt2"),
    *(
        {"model_type": t, **SMALL, "tie_word_embeddings": tied}
        for t in FAMILIES
        if t != "gpt2"
        for tied in (True, False)
    ),
    *(
        {"model_type": t, **SMALL, "head_dim": 24, "attention_bias": True, "mlp_bias": True}
        for t in FAMILIES
        if t != "gpt2"
    ),
    *({"model_type": t, **SMALL, "num_key_value_heads": None} for t in ("llama", "qwen2", "phi", "phi3", "smollm3")),
    {"model_type": "llama", **SMALL, "head_dim": None},
    {"model_type": "phi", **SMALL, "qk_layernorm": True},
    {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 32},
    {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80},
    {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
    {"model_type": "gpt2", **SMALL, "n_inner": None, "max_position_embeddings": 16},
    {"model_type": "mixtral", **SMALL, "num_local_experts": 3},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 3, "moe_intermediate_size": 16},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 3, "mlp_only_layers": [1], "decoder_sparse_step": 1},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 3, "decoder_sparse_step": 2},
    {"model_type": "qwen3_moe", **SMALL, "num_experts": 0},
]


def alias_config(alias):
    shape = ALIASES[alias].shape
    return {
        "model_type": "qwen2" if shape.family == "abacus" else shape.family,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
        "pad_token_id": None,
    }


def built(config):
    """The model that transformers builds from a config, without memory for its weights."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def linears_of(model):
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            found.append((name, module.out_features, module.in_features))
        elif isinstance(module, Conv1D):
            found.append((name, module.nf, module.nx))
    return found


def assert_shape_is_that_of(model, shape):
    assert [(m.name, m.d, m.k) for m in shape.linears] == linears_of(model)
    assert shape.context == model.config.max_position_embeddings
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.biases == sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias"))
    experts = [(n, tuple(p.shape)) for n, p in model.named_parameters() if p.ndim == 3]
    assert sorted((e.name, e.shape) for e in shape.expert_tensors) == sorted(experts)


@pytest.mark.parametrize("alias", ALIASES)
def test_shape_of_an_alias_is_that_of_the_model_that_transformers_builds(alias):
    assert_shape_is_that_of(built(alias_config(alias)), ALIASES[alias].shape)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c["model_type"])
def test_shape_of_a_config_is_that_of_the_model_that_transformers_builds(config):
    assert_shape_is_that_of(built(config), shape_from_config(config, "config.json"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c["model_type"])
def test_shape_of_a_saved_folder_is_that_of_its_config(config, tmp_path):
    pytest.importorskip("transformers")
    from transformers import AutoConfig

    AutoConfig.for_model(**config).save_pretrained(tmp_path)
    assert model_shape(str(tmp_path)) == (str(tmp_path), shape_from_config(config, "config.json"))


def test_every_family_is_compared_with_transformers():
    assert {c["model_type"] for c in CONFIGS} == set(FAMILIES)


def test_all_modules_of_a_mixture_of_experts_are_refused_and_the_others_are_named():
    shape = shape_from_config({"model_type": "mixtral", **SMALL}, "config.json")
    message = (
        r"mixtral keeps its experts in fused tensors \(model\.layers\.0\.mlp\.experts\), which no adapter here can "
        "share: name the other modules with --targets q_proj,k_proj,v_proj,o_proj"
    )
    for targets in (None, ("q_proj", "gate_up_proj"), ("experts",)):
        with pytest.raises(SpecError, match=message):
            shape.adapted_modules(targets)
    assert [m.type for m in shape.adapted_modules(("q_proj", "o_proj"))] == ["q_proj", "o_proj"] * 3


def test_dense_blocks_of_a_mixture_can_be_adapted():
    config = {"model_type": "qwen3_moe", **SMALL, "num_experts": 3, "mlp_only_layers": [1]}
    shape = shape_from_config(config, "config.json")
    assert [m.name for m in shape.adapted_modules(("up_proj",))] == ["model.layers.1.mlp.up_proj"]
    with pytest.raises(SpecError, match=r"\(model\.layers\.0\.mlp\.experts\)"):
        shape.adapted_modules()


def test_targets_keep_the_order_of_the_model_and_unknown_ones_are_refused():
    shape = ALIASES["abacus-0.9m"].shape
    assert [m.type for m in shape.adapted_modules(("v_proj", "q_proj"))] == ["q_proj", "v_proj"] * 4
    with pytest.raises(SpecError, match="unknown module type 'qproj': did you mean q_proj"):
        shape.adapted_modules(("q_proj", "qproj"))


def test_one_type_of_gpt2_is_in_attention_and_in_the_mlp():
    config = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 1, "n_head": 4}
    names = [m.name for m in shape_from_config(config, "config.json").adapted_modules(("c_proj",))]
    assert names == ["transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_proj"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "x/config.json: no model_type; supported are gemma, gemma2, "),
        (
            {"model_type": "bert"},
            "x/config.json: model_type 'bert', whose shape is not known here; supported are gemma",
        ),
        ({"model_type": ["llama"]}, "whose shape is not known here"),
        ({"model_type": "llama"}, "x/config.json: this llama config has no hidden_size, which its shape needs"),
        ({"model_type": "llama", **SMALL, "vocab_size": None}, "has no vocab_size"),
        ({"model_type": "llama", **SMALL, "num_hidden_layers": 0}, "has no num_hidden_layers"),
        ({"model_type": "gpt2"}, "this gpt2 config has no n_embd"),
        ({"model_type": "llama", **SMALL, "hidden_size": "64"}, "hidden_size of this llama config is no whole number"),
        ({"model_type": "llama", **SMALL, "hidden_size": -64}, "is no whole number: -64"),
        ({"model_type": "llama", **SMALL, "num_hidden_layers": True}, "is no whole number: True"),
        ({"model_type": "llama", **SMALL, "tie_word_embeddings": "no"}, "is neither true nor false"),
        ({"model_type": "gpt2", **SMALL, "add_cross_attention": True}, "is no decoder-only model"),
    ],
)
def test_config_of_no_known_shape_is_refused_in_one_line_that_names_the_file(config, message):
    with pytest.raises(SpecError, match=r"x/config\.json: ") as refused:
        shape_from_config(config, "x/config.json")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_alias_is_called_by_its_name_and_wins_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "abacus").mkdir()
    (tmp_path / "abacus" / "config.json").write_text(json.dumps({"model_type": "llama", **SMALL}))
    assert model_shape("abacus") == ("abacus-0.9m", ALIASES["abacus-0.9m"].shape)
    assert model_shape("./abacus")[1].family == "llama"
    assert model_shape("Qwen/Qwen3-8B")[0] == "qwen3-8b"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, SpecError, "no model folder, it has no config.json"),
        ("{", DataError, "cannot be read as JSON"),
        ("[]", DataError, "not a JSON object"),
        ("\udcff", DataError, "cannot be read as JSON"),
    ],
)
def test_folder_without_a_readable_config_is_refused(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(error, match=message) as refused:
        model_shape(str(tmp_path))
    assert str(tmp_path) in str(refused.value)


def test_missing_folder_is_refused_as_a_folder(tmp_path):
    with pytest.raises(SpecError, match="no such folder"):
        model_shape(str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match="unknown model 'abacsu': did you mean abacus"):
        model_shape("abacsu")
