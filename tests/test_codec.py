import contextlib
import math
import time

import numpy as np
import pytest
import torch
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.torch import load, save

from capacity.adapters.files import codec
from capacity.adapters.files.codec import decode, encode
from capacity.errors import BudgetError, DataError
from capacity.plan import storage
from capacity.plan.storage import BLOCK, FIXED_SIZE_DTYPES, STORAGE_DTYPES, parameters_within

QUANTISED = ("fp8", "int8", "int4", "entropy")
SCALE_SLACK = 1 + 2**-7  # a scale rounded up to bf16


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def through(values: torch.Tensor, dtype: str) -> torch.Tensor:
    return decode(encode(values, dtype), dtype, len(values))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal to the byte, as in a file."""
    return save(a) == save(b)


@st.composite
def vectors(draw) -> torch.Tensor:
    """Vectors of all scales and tails; some on a grid, some sparse, some with one large entry."""
    n = draw(st.integers(1, 200))
    kind = draw(st.sampled_from(["any", "normal", "grid", "sparse"]))
    if kind == "any":
        finite = st.floats(-(2.0**60), 2.0**60, width=32)
        return torch.from_numpy(draw(npst.arrays(np.float32, n, elements=finite)))
    values = normal(n, draw(st.integers(0, 10**6))) * 10.0 ** draw(st.integers(-38, 30))
    if kind == "grid":
        return (values * draw(st.integers(1, 40))).bfloat16().float()
    if kind == "sparse":
        values[torch.arange(n) != draw(st.integers(0, n - 1))] = 0
    return values


def error_bound(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Largest |x − decode(encode(x))| of every entry, float64; the last term is where formats run out of exponent."""
    x = values.double().abs()
    if dtype == "fp32":
        return torch.zeros_like(x)
    if dtype in ("bf16", "fp16"):
        digits, smallest = (8, 2**-134) if dtype == "bf16" else (11, 2**-25)
        return x * 2.0**-digits + smallest
    if dtype == "entropy":
        rms = x.square().mean().sqrt()
        return (rms / 16 * SCALE_SLACK + rms * 2.0**-20 + 2**-125 * 8 * math.sqrt(len(x))).expand_as(x)
    blocks = torch.nn.functional.pad(x, (0, -len(x) % BLOCK)).view(-1, BLOCK)
    largest = blocks.amax(dim=1).repeat_interleave(BLOCK)[: len(x)]
    if dtype == "fp8":
        return torch.maximum(x * 2**-4, largest / 448 * SCALE_SLACK * 2**-10) + 448 * 2**-126
    codes = 127 if dtype == "int8" else 7
    return largest / codes * SCALE_SLACK / 2 * (1 + 1e-6) + codes * 2**-126


@unhurried
@given(vectors(), st.sampled_from(STORAGE_DTYPES))
def test_decoded_numbers_are_near_their_originals(values, dtype):
    if dtype == "fp16":
        values = values.clamp(-65504, 65504)
    decoded = through(values, dtype)
    assert decoded.dtype == torch.float32
    assert decoded.shape == values.shape
    assert bool(((values.double() - decoded.double()).abs() <= error_bound(values, dtype)).all())


@unhurried
@given(vectors(), st.sampled_from(STORAGE_DTYPES))
def test_a_decoded_update_is_encoded_to_the_same_bytes(values, dtype):
    if dtype == "fp16":
        values = values.clamp(-65504, 65504)
    first = encode(values, dtype)
    assert same(encode(decode(first, dtype, len(values)), dtype), first)


@pytest.mark.parametrize("dtype", ["fp8", "int8", "int4"])
def test_every_bf16_scale_is_found_again_after_decoding(dtype):
    mantissas = torch.linspace(1, 2, 40_001)[:-1]  # every scale of one binade, approached from many maxima
    blocks = normal(40_000 * 3).clamp(-1, 1).view(-1, 3) * mantissas[:, None]
    values = torch.nn.functional.pad(torch.cat([mantissas[:, None] * 1.0001, blocks], 1), (0, BLOCK - 4)).flatten()
    first = encode(values, dtype)
    assert len(first["scales"].unique()) >= 128
    assert same(encode(decode(first, dtype, len(values)), dtype), first)


@pytest.mark.parametrize(("dtype", "largest"), [("fp8", 448), ("int8", 127), ("int4", 7)])
def test_the_largest_magnitude_of_a_block_takes_the_largest_code(dtype, largest):
    values = normal(64 * 500, 1)
    stored = encode(values, dtype)
    top = values.view(-1, BLOCK).abs().argmax(dim=1) + torch.arange(500) * BLOCK
    codes = decode(stored, dtype, len(values))[top].abs() / stored["scales"].float()
    assert torch.equal(codes, torch.full((500,), float(largest)))


@pytest.mark.parametrize(
    ("dtype", "n", "size"),
    [
        ("fp32", 13, 52),
        ("bf16", 13, 26),
        ("fp16", 13, 26),
        ("fp8", 13, 15),
        ("int8", 13, 15),
        ("int4", 13, 9),
        ("int4", 1, 3),
        ("int4", 64, 34),
        ("int4", 65, 37),
        ("fp8", 64, 66),
        ("int8", 65, 69),
    ],
)
def test_sizes_of_known_updates(dtype, n, size):
    stored = encode(normal(n), dtype)
    assert codec.payload_bytes(stored) == size == storage.payload_bytes(n, dtype)


@unhurried
@given(st.integers(1, 400), st.sampled_from(FIXED_SIZE_DTYPES))
def test_planned_size_is_the_encoded_size(n, dtype):
    assert codec.payload_bytes(encode(normal(n), dtype)) == storage.payload_bytes(n, dtype)


@unhurried
@given(st.one_of(st.integers(0, 3000), st.integers(0, 10**12)), st.sampled_from(FIXED_SIZE_DTYPES))
def test_as_many_parameters_fit_as_their_payload_allows(bits, dtype):
    count = parameters_within(bits, dtype)
    assert count <= parameters_within(bits + 1, dtype)
    assert count == 0 or storage.payload_bytes(count, dtype) * 8 <= bits
    assert storage.payload_bytes(count + 1, dtype) * 8 > bits


def test_the_size_of_an_entropy_coded_update_cannot_be_planned():
    for ask in (storage.payload_bytes, parameters_within):
        with pytest.raises(BudgetError, match="known only after training: give the budget in parameters"):
            ask(100, "entropy")
    assert set(STORAGE_DTYPES) - set(FIXED_SIZE_DTYPES) == {"entropy"}


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129])
def test_a_file_gives_back_the_update(dtype, n):
    stored = encode(normal(n) * 1e-3, dtype)
    assert set(stored) == {"theta"} | ({"scales"} if dtype in QUANTISED else set())
    read = load(save(stored))
    assert torch.equal(decode(read, dtype, n), decode(stored, dtype, n))


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_a_zero_update_stays_zero(dtype):
    assert torch.equal(through(torch.zeros(70), dtype), torch.zeros(70))
    if dtype in QUANTISED:
        assert not encode(torch.zeros(70), dtype)["scales"].any()


@pytest.mark.parametrize("dtype", [d for d in STORAGE_DTYPES if d != "fp16"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("n", [1, 65, 5000])
def test_tiny_and_huge_updates_keep_their_relative_precision(dtype, size, n):
    values = normal(n) * size
    error = (through(values, dtype) - values).double().norm() / values.double().norm()
    assert error < {"int4": 0.15, "fp8": 0.05, "entropy": 0.04}.get(dtype, 0.01)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_numbers_next_to_zero_and_next_to_overflow_do_not_break_the_codec(dtype):
    smallest, largest = 1e-45, torch.finfo(torch.float32).max
    for values in ([smallest], [smallest, -smallest, 0.0], [largest, -largest, 1.0], [largest, smallest]):
        decoded = through(torch.tensor(values), dtype)
        assert not bool(decoded.isnan().any())


def test_a_number_above_the_range_of_fp16_decodes_to_infinity():
    assert through(torch.tensor([1.0, 70000.0]), "fp16").tolist() == [1.0, math.inf]


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_what_cannot_be_stored_is_refused(dtype):
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(DataError, match="not finite"):
            encode(torch.tensor([1.0, bad]), dtype)
    with pytest.raises(DataError, match="one vector"):
        encode(torch.zeros(0), dtype)
    with pytest.raises(DataError, match="one vector"):
        encode(torch.zeros(2, 2), dtype)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@pytest.mark.parametrize("wrong", [0, 1, 64, 98, 99, 101, 102, 128, 1000, 10**9])
def test_another_count_is_refused(dtype, wrong):
    with pytest.raises(DataError, match=f"cannot be read as {dtype}"):
        decode(encode(normal(100), dtype), dtype, wrong)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
def test_missing_misnamed_and_mistyped_tensors_are_refused(dtype):
    stored = encode(normal(100), dtype)
    theta = stored["theta"]
    damaged = [
        {},
        {"weights": theta},
        stored | {"more": theta},
        stored | {"theta": theta.double()},
        stored | {"theta": theta[:-1]},
        stored | {"theta": theta[:0]},
        stored | {"theta": theta[None]},
        stored | {"theta": theta[0]},
    ]
    if "scales" in stored:
        scales = stored["scales"]
        damaged += [{"theta": theta}]
        damaged += [stored | {"scales": s} for s in (scales.float(), scales[:0], scales.repeat(2), -scales, scales / 0)]
    else:
        damaged += [stored | {"scales": torch.ones(2, dtype=torch.bfloat16)}]
    for tensors in damaged:
        with pytest.raises(DataError, match=f"cannot be read as {dtype}"):
            decode(tensors, dtype, 100)


@pytest.mark.parametrize(
    ("dtype", "code"),
    [("fp8", torch.tensor(math.nan).to(torch.float8_e4m3fn)), ("int8", torch.tensor(-128)), ("int4", torch.tensor(8))],
)
def test_codes_that_stand_for_no_number_are_refused(dtype, code):
    stored = encode(normal(100), dtype)
    stored["theta"][3] = code
    with pytest.raises(DataError, match="code that stands for no number"):
        decode(stored, dtype, 100)


def test_a_set_nibble_beyond_the_last_entry_is_refused():
    stored = encode(normal(99), "int4")
    stored["theta"][-1] |= 0x10
    with pytest.raises(DataError, match="more than 99 entries"):
        decode(stored, "int4", 99)


def test_low_nibble_comes_first():
    stored = encode(torch.tensor([7.0, -7.0, 1.0]), "int4")
    assert stored["theta"].tolist() == [0x97, 0x01]
    assert stored["scales"].tolist() == [1.0]


def test_rice_code_of_known_numbers():
    # RMS 8, so step 1. Folded: 16 15 16 15. k = 3: low bits 000 111 000 111, unary 001 01 001 01.
    stored = encode(torch.tensor([8.0, -8.0, 8.0, -8.0]), "entropy")
    assert stored["scales"].tolist() == [1.0]
    assert stored["theta"].tolist() == [3, 0b00011100, 0b01110010, 0b10010100]


@pytest.mark.parametrize("cut", [1, 2, 10])
def test_a_truncated_or_prolonged_rice_code_is_refused(cut):
    stored = encode(normal(100), "entropy")
    zeros = torch.zeros(cut, dtype=torch.uint8)
    for theta in (stored["theta"][:-cut], torch.cat([stored["theta"], zeros]), torch.full((70,), 255).byte()):
        with pytest.raises(DataError, match="cannot be read as entropy"):
            decode(stored | {"theta": theta}, "entropy", 100)


@unhurried
@given(st.binary(max_size=60), st.sampled_from([0.0, 1.0]), st.integers(1, 40))
def test_any_bytes_decode_to_numbers_or_are_refused(data, step, count):
    tensors = {
        "theta": torch.tensor(list(data), dtype=torch.uint8),
        "scales": torch.tensor([step], dtype=torch.bfloat16),
    }
    with contextlib.suppress(DataError):
        assert decode(tensors, "entropy", count).shape == (count,)


def test_encoding_is_deterministic():
    for dtype in STORAGE_DTYPES:
        assert same(encode(normal(1000), dtype), encode(normal(1000), dtype))


def test_encoding_leaves_its_input_alone():
    values = normal(100)
    before = values.clone()
    for dtype in STORAGE_DTYPES:
        stored = encode(values, dtype)
        for tensor in stored.values():
            tensor.zero_()
    assert torch.equal(values, before)


# Rate and distortion of N(0, 1)


def test_entropy_code_of_a_gaussian_is_near_its_entropy():
    values = normal(100_000)
    stored = encode(values, "entropy")
    ideal = 0.5 * math.log2(2 * math.pi * math.e) + 3  # entropy at step σ / 8
    assert ideal < codec.payload_bytes(stored) * 8 / len(values) < 1.03 * ideal
    step = float(stored["scales"])
    error = (decode(stored, "entropy", len(values)) - values).square().mean().item()
    assert error == pytest.approx(step**2 / 12, rel=0.02)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_error_of_blocks_is_that_of_uniform_quantisation(dtype):
    values = normal(100_000)
    stored = encode(values, dtype)
    theory = stored["scales"].double().square().mean().item() / 12
    error = (decode(stored, dtype, len(values)) - values).double().square().mean().item()
    assert error == pytest.approx(theory, rel=0.02)


def test_a_million_entries_are_coded_within_a_second():
    values = normal(1_000_000)
    encode(values[:1000], "entropy")
    began = time.process_time()
    decode(encode(values, "entropy"), "entropy", len(values))
    assert time.process_time() - began < 1
