import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from sizes import site_of

from capacity.errors import BudgetError, SpecError
from capacity.plan.budget import Budget
from capacity.plan.kinds.kind import Site, Size
from capacity.plan.kinds.table import KINDS
from capacity.plan.model_shapes import ModuleShape, shape_from_config
from capacity.plan.models import ALIASES
from capacity.plan.sizes import SizeChoice, largest_of, largest_of_all, size_of
from capacity.plan.storage import FIXED_SIZE_DTYPES, parameters_within, payload_bytes


def solve_on(alias: str, limit: int, **options) -> Size:
    return size_of(alias, SizeChoice(budget=limit, **{"rank": 2, **options}), "bf16")


Described = tuple[str, int, dict[str, int]]


def solution(kind: str, count: int, **numbers: int) -> Described:
    """Kind, trained parameters, and the numbers behind them."""
    return kind, count, numbers


def described(size: Size) -> Described:
    """The same of a size."""
    names = ("rank", "u", "groups", "vectors", "vector_length", "length")
    numbers = {name: value for name, value in size.template.model_dump().items() if name in names}
    return solution(size.kind, size.trained_parameters, **numbers)


def chosen_on(modules, kind: str, **told) -> Size:
    return KINDS[kind].chosen(told, site_of(modules))


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("100", 100, "parameters"),
        (" 100 ", 100, "parameters"),
        ("007", 7, "parameters"),
        ("26B", 208, "bits"),
        ("26 B", 208, "bits"),
        ("208bit", 208, "bits"),
        ("1KiB", 8192, "bits"),
        ("1MiB", 8 * 1024**2, "bits"),
        ("1GiB", 8 * 1024**3, "bits"),
        ("1,000", 1000, "parameters"),
        ("1,234,567", 1_234_567, "parameters"),
        ("100k", 100_000, "parameters"),
        ("1.5K", 1500, "parameters"),
        ("2M", 2_000_000, "parameters"),
        ("1kB", 8000, "bits"),
        ("100MB", 8 * 10**8, "bits"),
        ("1.5KiB", 12_288, "bits"),
        ("1kbit", 1000, "bits"),
    ],
)
def test_budget_is_read(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize(
    "text", ["", "B", "-5", "1e3", "10 0", "1 B B", "26B!", "ten", "0x10", "1,00", "1,0000", ",100", "1.", ".5"]
)
def test_unreadable_budget_is_refused_and_the_forms_are_shown(text):
    with pytest.raises(BudgetError, match=r"cannot be read: write 100 \(parameters\), 100k, 26B, 1KiB or 208bit"):
        Budget.parse(text)


@pytest.mark.parametrize("unit", ["b", "kib", "KiBB", "bits", "byte", "Kibit", "m"])
def test_unknown_unit_is_refused_and_the_units_are_listed(unit):
    with pytest.raises(BudgetError, match=f"unknown unit '{unit}': use k, M or G for numbers, B, kB, KiB"):
        Budget.parse(f"1{unit}")


@pytest.mark.parametrize("text", ["1.5", "0.3B", "1.00001k"])
def test_a_part_of_a_parameter_is_no_budget(text):
    with pytest.raises(BudgetError, match="is not a whole number: write 100"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["0", "0B", "000bit"])
def test_zero_budget_is_below_one_parameter(text):
    with pytest.raises(BudgetError, match="below one parameter"):
        Budget.parse(text)


def test_budget_of_very_many_digits_ends_as_a_budget_error():
    with pytest.raises(BudgetError):
        Budget.parse("9" * 5000)


@pytest.mark.parametrize(
    ("text", "dtype", "count"),
    [
        ("26B", "bf16", 13),
        ("208bit", "bf16", 13),
        ("208bit", "fp16", 13),
        ("207bit", "bf16", 12),
        ("26B", "fp32", 6),
        ("1KiB", "bf16", 512),
        ("1KiB", "fp32", 256),
        ("100", "bf16", 100),
        ("100", "fp32", 100),
    ],
)
def test_budget_in_parameters_depends_on_the_storage_dtype_only_for_bits(text, dtype, count):
    assert Budget.parse(text).parameters(dtype) == count


@pytest.mark.parametrize(("text", "dtype"), [("1bit", "bf16"), ("1B", "fp16"), ("31bit", "fp32")])
def test_budget_too_small_for_one_stored_parameter_names_the_dtype(text, dtype):
    with pytest.raises(BudgetError, match=f"below one parameter in {dtype}"):
        Budget.parse(text).parameters(dtype)


@unhurried
@given(st.integers(0, 10**12), st.sampled_from(FIXED_SIZE_DTYPES))
def test_as_many_parameters_fit_as_their_payload_allows(bits, dtype):
    count = parameters_within(bits, dtype)
    assert 8 * payload_bytes(count, dtype) <= bits < 8 * payload_bytes(count + 1, dtype)


def test_budget_in_bytes_has_no_meaning_for_an_entropy_coded_update():
    assert Budget.parse("100").parameters("entropy") == 100
    with pytest.raises(BudgetError, match="give the budget in parameters"):
        Budget.parse("26B").parameters("entropy")


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 52), ("bf16", 26), ("fp16", 26)])
def test_thirteen_parameters_take_their_bytes(dtype, size):
    assert payload_bytes(13, dtype) == size


@pytest.mark.parametrize(
    ("alias", "limit", "expected"),
    [
        ("abacus-0.9m", 1, ("tinylora", 1, 1, 1)),
        ("abacus-0.9m", 13, ("tinylora", 13, 1, 13)),
        ("abacus-0.9m", 27, ("tinylora", 27, 1, 27)),
        ("abacus-0.9m", 28, ("tinylora", 28, 1, 28)),
        ("abacus-0.9m", 55, ("tinylora", 28, 1, 28)),
        ("abacus-0.9m", 100, ("tinylora", 84, 3, 28)),
        ("abacus-0.9m", 112, ("tinylora", 112, 4, 28)),
        ("abacus-0.9m", 251, ("tinylora", 112, 4, 28)),
        ("qwen2.5-3b", 100, ("tinylora", 100, 1, 100)),
        ("qwen2.5-7b", 13, ("tinylora", 13, 1, 13)),
    ],
)
def test_tinylora_vectors_of_the_design(alias, limit, expected):
    kind, count, u, groups = expected
    assert described(solve_on(alias, limit)) == solution(kind, count, rank=2, u=u, groups=groups)


def test_above_tinylora_come_lora_xs_then_lora_then_full():
    assert described(solve_on("abacus-0.9m", 252)) == solution("lora-xs", 28 * 9, rank=3)
    per_rank = sum(m.d + m.k for m in ALIASES["abacus-0.9m"].shape.adapted_modules())
    assert described(solve_on("abacus-0.9m", 60 * per_rank)) == solution("lora", 60 * per_rank, rank=60)
    assert described(solve_on("abacus-0.9m", 861_952)) == solution("full", 861_952)


def test_limit_of_the_whole_model_is_full_and_one_less_is_not():
    shape = ALIASES["qwen2.5-0.5b"].shape
    assert described(solve_on("qwen2.5-0.5b", shape.parameters)) == solution("full", shape.parameters)
    assert solve_on("qwen2.5-0.5b", shape.parameters - 1).kind != "full"


@pytest.mark.parametrize(("limit", "says"), [(0, "below one parameter"), (-1, "cannot be read")])
def test_limit_below_one_is_refused(limit, says):
    with pytest.raises(BudgetError, match=says):
        solve_on("abacus-0.9m", limit)


def test_limit_above_the_model_is_refused_with_its_size_and_the_way_out():
    with pytest.raises(BudgetError, match="above the model, which has 861,952: lower it, or use --adapter"):
        solve_on("abacus-0.9m", 861_953)


def test_structured_budget_below_the_number_of_types_is_refused_and_tiled_is_not():
    with pytest.raises(SpecError, match="7 module types"):
        solve_on("abacus-0.9m", 6, sharing="structured")
    assert solve_on("abacus-0.9m", 7, sharing="structured").template.groups == 7
    assert solve_on("abacus-0.9m", 6, sharing="tiled").template.groups == 6


def brute_force(shapes: list[ModuleShape], model_parameters: int, limit: int, rank: int) -> Described:
    """The largest of all updates of the allowed family that fit; of equals, the earlier kind."""
    modules, narrow = len(shapes), min(min(s.d, s.k) for s in shapes)
    family = [solution("tinylora", g, rank=rank, u=1, groups=g) for g in range(1, modules + 1)]
    for u in range(2, rank**2 + 1):
        family.append(solution("tinylora", modules * u, rank=rank, u=u, groups=modules))
    family += [solution("lora-xs", sum(r * r for _ in shapes), rank=r) for r in range(1, narrow + 1)]
    family += [solution("lora", sum(r * s.d + s.k * r for s in shapes), rank=r) for r in range(1, narrow + 1)]
    family.append(solution("full", model_parameters))
    best = max(count for _, count, _ in family if count <= limit)
    if best == model_parameters:
        return family[-1]
    return next(found for found in family if found[1] == best)


@st.composite
def problems(draw):
    sides = st.integers(1, 9)
    pairs = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=12))
    shapes = [ModuleShape(f"layers.{i}.proj", d, k) for i, (d, k) in enumerate(pairs)]
    rank = draw(st.integers(1, min(min(pair) for pair in pairs)))
    extra = draw(st.integers(0, 500))
    model = sum((d + 1) * (k + 1) for d, k in pairs) + extra
    return shapes, model, draw(st.integers(1, model)), rank


@unhurried
@given(problems())
def test_solver_agrees_with_a_search_over_all_updates(problem):
    shapes, model, limit, rank = problem
    found = largest_of_all({"rank": rank}, site_of(shapes, model), limit)
    assert described(found) == brute_force(shapes, model, limit, rank)


@unhurried
@given(st.data(), st.sampled_from(sorted(ALIASES)), st.integers(0, 33))
def test_solution_is_never_above_the_limit_and_never_shrinks_with_it(data, alias, magnitude):
    model = ALIASES[alias].shape.parameters
    limit = data.draw(st.integers(1, min(2**magnitude, model)))
    larger = data.draw(st.integers(limit, model))
    count = solve_on(alias, limit).trained_parameters
    assert 1 <= count <= limit
    assert count <= solve_on(alias, larger).trained_parameters


SHAPES = ALIASES["abacus-0.9m"].shape.adapted_modules()
PER_RANK = sum(m.d + m.k for m in SHAPES)


@pytest.mark.parametrize(
    ("adapter", "limit", "expected"),
    [
        ("tinylora", 100, solution("tinylora", 84, rank=4, u=3, groups=28)),
        ("tinylora", 10**6, solution("tinylora", 448, rank=4, u=16, groups=28)),
        ("lora-xs", 28, solution("lora-xs", 28, rank=1)),
        ("lora-xs", 1000, solution("lora-xs", 700, rank=5)),
        ("lora-xs", 10**9, solution("lora-xs", 28 * 128**2, rank=128)),
        ("lora", PER_RANK, solution("lora", PER_RANK, rank=1)),
        ("lora", 3 * PER_RANK - 1, solution("lora", 2 * PER_RANK, rank=2)),
        ("lora", 10**9, solution("lora", 128 * PER_RANK, rank=128)),
        ("vera", 5632 + 28, solution("vera", 5660, rank=1)),
        ("vera", 6000, solution("vera", 5996, rank=13)),
        ("vera", 10**6, solution("vera", 5632 + 28 * 35513, rank=35513)),
        ("vb-lora", 896, solution("vb-lora", 896, rank=4, vectors=2, vector_length=128)),
        ("vb-lora", 30000, solution("vb-lora", 29568, rank=4, vectors=66, vector_length=128)),
        ("uni-lora", 1, solution("uni-lora", 1, rank=4, length=1)),
        ("uni-lora", 13, solution("uni-lora", 13, rank=4, length=13)),
        ("uni-lora", 10**9, solution("uni-lora", 4 * PER_RANK, rank=4, length=4 * PER_RANK)),
        ("bitfit", 1536, solution("bitfit", 1536)),
        ("full", 10**9, solution("full", 861_952)),
    ],
)
def test_largest_update_of_a_named_adapter(adapter, limit, expected):
    site = Site("abacus-0.9m", ALIASES["abacus-0.9m"].shape)
    assert described(largest_of(KINDS[adapter], {"rank": 4}, site, limit)) == expected


@pytest.mark.parametrize(
    ("adapter", "smallest", "says"),
    [
        ("lora-xs", 28, "starts at 28 "),
        ("lora", PER_RANK, "starts at 10,240 "),
        ("vera", 5660, "starts at 5,660 "),
        ("vb-lora", 896, "starts at 896 "),
        ("bitfit", 1536, "is 1,536 "),
        ("full", 861_952, "is 861,952 "),
    ],
)
def test_budget_below_the_smallest_update_names_its_size(adapter, smallest, says):
    kind, site = KINDS[adapter], Site("abacus-0.9m", ALIASES["abacus-0.9m"].shape)
    assert largest_of(kind, {"rank": 4}, site, smallest).trained_parameters == smallest
    with pytest.raises(BudgetError, match=f"too small for adapter {adapter}, which {says}"):
        largest_of(kind, {"rank": 4}, site, smallest - 1)


def test_model_without_biases_has_no_bitfit():
    for limit in (1, 100):
        with pytest.raises(SpecError, match="this model has no biases"):
            largest_of(KINDS["bitfit"], {}, Site("llama-3.1-8b", ALIASES["llama-3.1-8b"].shape), limit)


def test_bank_vectors_must_divide_every_side():
    shapes = (ModuleShape("a.q_proj", 64, 32), ModuleShape("a.k_proj", 48, 32))
    assert chosen_on(shapes, "vb-lora").template.vector_length == 16
    assert chosen_on(ALIASES["llama-3.1-8b"].shape.linears, "vb-lora").template.vector_length == 256
    message = r"vector length 32 does not divide both sides of a\.k_proj, 48×32: 16 does"
    with pytest.raises(SpecError, match=message):
        chosen_on(shapes, "vb-lora", rank=1, vectors=2, vector_length=32)
    with pytest.raises(SpecError, match="vector length 0 does not divide"):
        chosen_on(shapes, "vb-lora", rank=1, vectors=2, vector_length=0)
    with pytest.raises(SpecError, match="a bank of 1 vectors is below 2"):
        chosen_on(shapes, "vb-lora", rank=1, vectors=1, vector_length=16)


@pytest.mark.parametrize("length", [0, 4 * PER_RANK + 1])
def test_vector_of_uni_lora_is_no_longer_than_lora(length):
    with pytest.raises(SpecError, match="is outside 1 … 40,960, the entries of LoRA of rank 4"):
        chosen_on(SHAPES, "uni-lora", rank=4, length=length)


@st.composite
def modules(draw):
    sides = st.integers(1, 6).map(lambda n: 4 * n)
    pairs = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=8))
    return tuple(ModuleShape(f"layers.{i}.proj", d, k) for i, (d, k) in enumerate(pairs))


@unhurried
@given(modules(), st.integers(1, 3000), st.integers(1, 4))
def test_named_solutions_are_the_largest_that_fit(shapes, limit, rank):
    narrow, longest = min(min(s.d, s.k) for s in shapes), rank * sum(s.d + s.k for s in shapes)
    told = {"rank": rank}
    families = {
        "lora-xs": [chosen_on(shapes, "lora-xs", rank=r) for r in range(1, narrow + 1)],
        "lora": [chosen_on(shapes, "lora", rank=r) for r in range(1, narrow + 1)],
        "vera": [chosen_on(shapes, "vera", rank=r) for r in range(1, limit + 2)],
        "vb-lora": [chosen_on(shapes, "vb-lora", **told, vectors=v) for v in range(2, limit + 3)],
        "uni-lora": [chosen_on(shapes, "uni-lora", **told, length=n) for n in range(1, longest + 1)],
    }
    for adapter, family in families.items():
        fitting = [s for s in family if s.trained_parameters <= limit]
        if fitting:
            assert largest_of(KINDS[adapter], told, site_of(shapes), limit) == fitting[-1]
        else:
            with pytest.raises(BudgetError, match=f"starts at {family[0].trained_parameters:,} "):
                largest_of(KINDS[adapter], told, site_of(shapes), limit)


LLAMA = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "pad_token_id": 0,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=lambda c: c["model_type"])
@pytest.mark.parametrize("targets", [False, True], ids=["all", "some"])
@pytest.mark.parametrize(
    ("name", "options", "kind", "told"),
    [
        ("LoraConfig", {"r": 3}, "lora", {"rank": 3}),
        ("VeraConfig", {"r": 5}, "vera", {"rank": 5}),
        ("VeraConfig", {"r": 256}, "vera", {}),
        ("VBLoRAConfig", {"r": 3, "num_vectors": 7, "vector_length": 16}, "vb-lora",
         {"rank": 3, "vectors": 7, "vector_length": 16}),
        ("UniLoraConfig", {"r": 3, "theta_d_length": 37}, "uni-lora", {"rank": 3, "length": 37}),
    ],
)  # fmt: skip
def test_counts_are_those_of_peft(config, targets, name, options, kind, told):
    pytest.importorskip("torch")
    import peft
    from transformers import AutoConfig, AutoModelForCausalLM

    types = ("q_proj", "k_proj", "down_proj", "c_attn", "c_proj")
    shape = shape_from_config(config, "config.json")
    shapes = shape.adapted_modules([t for t in types if t in shape.module_types] if targets else None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    adapter = getattr(peft, name)(
        target_modules=[s.name for s in shapes],
        task_type="CAUSAL_LM",
        fan_in_fan_out=shape.family == "gpt2",
        **options,
    )
    wrapped = peft.get_peft_model(model, adapter)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert chosen_on(shapes, kind, **told).trained_parameters == trained


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=lambda c: c["model_type"])
def test_count_of_bitfit_is_that_of_the_biases_that_transformers_makes(config):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    biases = sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias"))
    site = Site("made up", shape_from_config(config, "config.json"))
    assert KINDS["bitfit"].chosen({}, site).trained_parameters == biases > 0
