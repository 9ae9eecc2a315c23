import pytest

from capacity.errors import SpecError
from capacity.models.aliases import ALIASES, resolve
from capacity.training.pairs import size_from_choice

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
LAYERS = {
    "abacus-0.9m": 4,
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
    assert set(LAYERS) == set(ALIASES) == {*PUBLISHED_PARAMETERS, "abacus-0.9m"}


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
    assert size_from_choice("llama-3.1-8b", "lora", rank=1).solution.trained_parameters == 2_621_440


@pytest.mark.parametrize("alias", ALIASES)
def test_full_trains_the_whole_model(alias):
    assert size_from_choice(alias, "full").solution.trained_parameters == ALIASES[alias].shape.parameters


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
    size = size_from_choice(alias, "tinylora", n_tie=n_tie, u=u)
    assert size.solution.trained_parameters == published
    assert size.group_of_module is not None
    assert len(set(size.group_of_module)) * u == published


def test_exactly_one_hundred_parameters_on_28_modules_take_25_groups_of_four():
    size = size_from_choice("abacus-0.9m", "tinylora", u=4, groups=25)
    assert size.solution.trained_parameters == 100


def test_lora_xs_trains_rank_squared_a_module():
    assert size_from_choice("abacus-0.9m", "lora-xs", rank=8).solution.trained_parameters == 1792


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
    with pytest.raises(SpecError, match=r"choose from abacus, abacus-0\.9m, llama-3\.1-8b"):
        resolve("zzzz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"u": 5}, "u 5 is outside 1 … 4"),
        ({"u": 0}, "u 0 is outside 1 … 4"),
        ({"u": 9, "groups": 13}, "u 9 is outside 1 … 8"),
        ({"groups": 0}, "0 groups are outside 1 … 28"),
        ({"n_tie": 0}, "n_tie 0 is outside 1 … 28"),
        ({"groups": 2, "n_tie": 14}, "give one of them"),
        ({"rank": 0}, "rank 0 is outside 1 … 128"),
        ({"rank": 129}, "rank 129 is outside 1 … 128"),
    ],
)
def test_choice_out_of_range_is_refused_with_the_range(options, message):
    with pytest.raises(SpecError, match=message):
        size_from_choice("abacus-0.9m", "tinylora", **options)


@pytest.mark.parametrize("adapter", ["lora", "lora-xs", "full"])
def test_tinylora_options_are_refused_for_other_adapters(adapter):
    with pytest.raises(SpecError, match=f"--u belong to adapter tinylora, not to {adapter}"):
        size_from_choice("abacus-0.9m", adapter, u=1)
