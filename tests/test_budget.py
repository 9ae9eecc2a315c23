import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.adapters.budget import Budget, ModuleShape, Solution, solve
from capacity.adapters.storage import BITS_PER_PARAMETER, STORAGE_DTYPES, parameters_within, payload_bytes
from capacity.errors import BudgetError, SpecError
from capacity.models.aliases import ALIASES


def solve_on(alias: str, limit: int, **options) -> Solution:
    shape = ALIASES[alias].shape
    return solve(shape.adapted_modules(), shape.parameters, limit, **options)


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
    ],
)
def test_budget_is_read(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "B", "-5", "1.5KiB", "1e3", "10 0", "1 B B", "26B!", "ten", "0x10"])
def test_unreadable_budget_is_refused_and_the_forms_are_shown(text):
    with pytest.raises(BudgetError, match=r"cannot be read: write 100 \(parameters\), 26B, 1KiB or 208bit"):
        Budget.parse(text)


@pytest.mark.parametrize("unit", ["b", "kib", "KB", "bits", "byte", "TiB"])
def test_unknown_unit_is_refused_and_the_units_are_listed(unit):
    with pytest.raises(BudgetError, match=f"unknown unit '{unit}': use bit, B, KiB, MiB or GiB"):
        Budget.parse(f"1{unit}")


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
@given(st.integers(0, 10**12), st.sampled_from(STORAGE_DTYPES))
def test_as_many_parameters_fit_as_their_payload_allows(bits, dtype):
    count = parameters_within(bits, dtype)
    assert count * BITS_PER_PARAMETER[dtype] <= bits < (count + 1) * BITS_PER_PARAMETER[dtype]


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
    solution = solve_on(alias, limit)
    assert (solution.adapter, solution.trained_parameters, solution.u, solution.groups) == expected
    assert solution.rank == 2


def test_above_tinylora_come_lora_xs_then_lora_then_full():
    assert solve_on("abacus-0.9m", 252) == Solution("lora-xs", 28 * 9, rank=3)
    per_rank = sum(m.d + m.k for m in ALIASES["abacus-0.9m"].shape.adapted_modules())
    assert solve_on("abacus-0.9m", 60 * per_rank) == Solution("lora", 60 * per_rank, rank=60)
    assert solve_on("abacus-0.9m", 859_776) == Solution("full", 859_776)


def test_limit_of_the_whole_model_is_full_and_one_less_is_not():
    shape = ALIASES["qwen2.5-0.5b"].shape
    assert solve_on("qwen2.5-0.5b", shape.parameters) == Solution("full", shape.parameters)
    assert solve_on("qwen2.5-0.5b", shape.parameters - 1).adapter != "full"


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_refused(limit):
    with pytest.raises(BudgetError, match="below one parameter"):
        solve_on("abacus-0.9m", limit)


def test_limit_above_the_model_is_refused_with_its_size_and_the_way_out():
    with pytest.raises(BudgetError, match="above the model, which has 859,776: lower it, or use --adapter"):
        solve_on("abacus-0.9m", 859_777)


def test_structured_budget_below_the_number_of_types_is_refused_and_tiled_is_not():
    with pytest.raises(SpecError, match="7 module types"):
        solve_on("abacus-0.9m", 6, sharing="structured")
    assert solve_on("abacus-0.9m", 7, sharing="structured").groups == 7
    assert solve_on("abacus-0.9m", 6, sharing="tiled").groups == 6


def brute_force(shapes: list[ModuleShape], model_parameters: int, limit: int, rank: int) -> Solution:
    """The largest of all updates of the allowed family that fit; of equals, the earlier kind."""
    modules, narrow = len(shapes), min(min(s.d, s.k) for s in shapes)
    family = [Solution("tinylora", g, rank=rank, u=1, groups=g) for g in range(1, modules + 1)]
    for u in range(2, rank**2 + 1):
        family.append(Solution("tinylora", modules * u, rank=rank, u=u, groups=modules))
    family += [Solution("lora-xs", sum(r * r for _ in shapes), rank=r) for r in range(1, narrow + 1)]
    family += [Solution("lora", sum(r * s.d + s.k * r for s in shapes), rank=r) for r in range(1, narrow + 1)]
    family.append(Solution("full", model_parameters))
    best = max(s.trained_parameters for s in family if s.trained_parameters <= limit)
    if best == model_parameters:
        return family[-1]
    return next(s for s in family if s.trained_parameters == best)


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
    assert solve(shapes, model, limit, rank=rank) == brute_force(shapes, model, limit, rank)


@unhurried
@given(st.data(), st.sampled_from(sorted(ALIASES)), st.integers(0, 33))
def test_solution_is_never_above_the_limit_and_never_shrinks_with_it(data, alias, magnitude):
    model = ALIASES[alias].shape.parameters
    limit = data.draw(st.integers(1, min(2**magnitude, model)))
    larger = data.draw(st.integers(limit, model))
    count = solve_on(alias, limit).trained_parameters
    assert 1 <= count <= limit
    assert count <= solve_on(alias, larger).trained_parameters
