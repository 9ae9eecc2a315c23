import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from scipy.linalg import hadamard
from scipy.sparse.linalg import svds

from capacity.adapters.svd import cache as factor_cache
from capacity.adapters.svd import factors, products
from capacity.adapters.svd.cache import cached_svd
from capacity.adapters.svd.content_hash import content_hash
from capacity.adapters.svd.factors import TOLERANCE, Factors, truncated_svd
from capacity.errors import CapacityError


def weight(d: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(d, k, generator=torch.Generator().manual_seed(seed))


def spectrum(d: int, k: int, sigma: np.ndarray, seed: int = 0) -> torch.Tensor:
    """A float64 matrix with these singular values."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.standard_normal((d, len(sigma))))[0]
    v = np.linalg.qr(rng.standard_normal((k, len(sigma))))[0]
    return torch.from_numpy((u * sigma) @ v.T)


def residuals(w: torch.Tensor, f: Factors) -> np.ndarray:
    """The larger of ‖Wᵀu − σv‖ and ‖Wv − σu‖ of each triplet."""
    m = w.double().numpy()
    sides = (m.T @ f.u - f.vt.T * f.sigma, m @ f.vt.T - f.u * f.sigma)
    return np.maximum(*(np.linalg.norm(s, axis=0) for s in sides))


def delta(f: Factors, r: np.ndarray) -> np.ndarray:
    """ΔW = U Σ R Vᵀ."""
    return (f.u * f.sigma) @ r @ f.vt


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(("d", "k"), [(128, 128), (384, 128), (128, 384), (7, 300), (2, 2)])
def test_leading_triplets_equal_a_full_svd_in_float64(d: int, k: int) -> None:
    w = weight(d, k)
    u, sigma, vt = np.linalg.svd(w.double().numpy())
    found = truncated_svd(w, 2, content_hash(w))
    np.testing.assert_allclose(found.sigma, sigma[:2], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found.u * u[:, :2], axis=0)), 1, atol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(found.vt * vt[:2], axis=1)), 1, atol=1e-9)


def test_residual_is_within_the_stated_precision() -> None:
    w = weight(200, 150)
    f = truncated_svd(w, 4, content_hash(w))
    assert (residuals(w, f) <= TOLERANCE * f.sigma[0]).all()


KINDS = {
    "gaussian": weight,
    "bfloat16": lambda d, k: weight(d, k).bfloat16(),
    "decaying": lambda d, k: spectrum(d, k, 5.0 * np.arange(1, min(d, k) + 1) ** -0.7).float(),
    "outlier": lambda d, k: spectrum(d, k, np.r_[1e4, np.linspace(2, 1, min(d, k) - 1)]),
}


@pytest.mark.parametrize("rank", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "k"), [(400, 150), (150, 400)])
def test_an_update_is_the_same_whichever_algorithm_made_the_factors(d: int, k: int, kind: str, rank: int) -> None:
    assert_exact(KINDS[kind](d, k), rank)


def assert_exact(w: torch.Tensor, rank: int) -> None:
    """The residuals are as stated, and two other algorithms, from their own factors, make the same ΔW within 1e-4."""
    found = truncated_svd(w, rank, content_hash(w))
    sigma = np.append(found.sigma, found.next_sigma)
    gaps = -np.diff(sigma)
    nearest = np.minimum(gaps, np.append(np.inf, gaps[:-1]))
    allowed = np.maximum(np.minimum(1e-6 * sigma[0], 3e-5 * nearest), 1e-12 * sigma[0])
    assert (residuals(w, found) <= 1.01 * allowed).all()
    m = w.double().numpy()
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    v0 = np.random.default_rng(0).standard_normal(min(w.shape))
    pu, ps, pvt = svds(m, k=rank, v0=v0, tol=1e-13)
    order = np.argsort(-ps)
    r = np.random.default_rng(rank).standard_normal((rank, rank))
    for ou, os_, ovt in ((u[:, :rank], s[:rank], vt[:rank]), (pu[:, order], ps[order], pvt[order])):
        sign = np.sign(np.sum(ou * found.u, axis=0))
        other = Factors(ou * sign, os_, ovt * sign[:, None], 0.0)
        assert relative(delta(found, r), delta(other, r)) < 1e-4
    np.testing.assert_allclose(found.next_sigma, s[rank], rtol=1e-4)


@pytest.fixture(params=[True, False], ids=["8 bits", "float32"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU is taken to be fast at integers of 8 bits; small weights of a flat spectrum count as large."""
    monkeypatch.setattr(products, "_FLAT", 100)
    monkeypatch.setattr(products, "_LONG", 1)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every weight whose WᵀW was formed, whether it was that of the rounded weight."""
    formed: list[bool] = []
    multiply = products.Sides._multiply

    def observed(sides: products.Sides, mean_square: float, keep: int) -> None:
        multiply(sides, mean_square, keep)
        formed.append(sides.rounded)

    monkeypatch.setattr(products.Sides, "_multiply", observed)
    return formed


@pytest.mark.parametrize("rank", [1, 2, 5, 8])
@pytest.mark.parametrize(("d", "k"), [(900, 300), (300, 900)])
def test_an_update_of_a_flat_weight_is_the_same_whichever_algorithm_made_the_factors(
    d: int, k: int, rank: int, fast: bool, rounded: list[bool]
) -> None:
    assert_exact(weight(d, k), rank)
    assert_exact(weight(d, k, 1) ** 3, rank)  # of heavy tails
    assert rounded == [fast, False]


def test_singular_values_of_a_flat_weight_may_all_be_the_same(fast: bool, rounded: list[bool]) -> None:
    w = torch.from_numpy(hadamard(512)[:, :200]).float()
    f = truncated_svd(w, 3, content_hash(w))
    assert rounded == [fast]
    np.testing.assert_allclose(f.sigma, 512**0.5, rtol=1e-12)
    assert (residuals(w, f) <= TOLERANCE * f.sigma[0]).all()


@pytest.mark.parametrize("wide", [False, True])
def test_products_of_a_rounded_weight_are_exact(wide: bool) -> None:
    levels = torch.randint(-127, 128, (700, 300), generator=torch.Generator().manual_seed(0))
    expected = (levels.T @ levels).numpy() / 127**2 * 9
    w = levels * (3 / 127)
    found = products._rounded_gram(w.T.contiguous() if wide else w, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_update_is_the_same_on_one_thread_and_on_two(tmp_path: Path) -> None:
    script = (
        "import sys, torch, numpy as np\n"
        "from capacity.adapters.svd import products\n"
        "from capacity.adapters.svd.content_hash import content_hash\n"
        "from capacity.adapters.svd.factors import truncated_svd\n"
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "w = torch.randn(400, 900, generator=torch.Generator().manual_seed(3))\n"
        "products._LONG = 1\n"
        "updates = []\n"
        "for products._FLAT in (100, 1000):\n"
        "    f = truncated_svd(w, 2, content_hash(w))\n"
        "    updates.append((f.u * f.sigma) @ np.array([[1.0, 2.0], [-1.0, 0.5]]) @ f.vt)\n"
        "np.save(sys.argv[2], updates)\n"
    )
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", script, threads, str(tmp_path / f"{threads}.npy")]
        subprocess.run(command, env=environment, check=True)
    one, two = (np.load(tmp_path / f"{t}.npy") for t in "12")
    for update in one:
        assert all(relative(update, other) < 1e-4 for other in two)


def test_the_same_weight_gives_the_same_bytes() -> None:
    w = weight(300, 200)
    first, second = (truncated_svd(w, 3, content_hash(w)) for _ in range(2))
    np.testing.assert_array_equal(first.u, second.u)
    np.testing.assert_array_equal(first.vt, second.vt)


@pytest.mark.parametrize("rank", [4, 5])
def test_all_or_all_but_one_triplets(rank: int) -> None:
    w = weight(40, 5)
    f = truncated_svd(w, rank, content_hash(w))
    s = np.linalg.svd(w.double().numpy(), compute_uv=False)
    np.testing.assert_allclose([*f.sigma, f.next_sigma], [*s, 0.0][: rank + 1], rtol=1e-12)


def test_a_zero_weight_has_zero_factors() -> None:
    f = truncated_svd(torch.zeros(50, 30), 2, "0" * 64)
    assert f.sigma.tolist() == [0, 0]
    assert f.next_sigma == 0
    np.testing.assert_allclose(f.u.T @ f.u, np.eye(2), atol=1e-14)


@pytest.mark.parametrize(
    "w",
    [
        torch.eye(300),
        torch.outer(weight(60, 1)[:, 0], weight(40, 1, 1)[:, 0]),
        spectrum(200, 120, np.r_[2.0, np.ones(119)]),
        spectrum(200, 120, 1 + 1e-9 * np.arange(120.0)[::-1]),
        spectrum(200, 120, 10.0 ** -np.arange(0, 120, 4.0)),
    ],
    ids=["identity", "rank one", "repeated", "cluster", "graded"],
)
@pytest.mark.parametrize("rank", [2, 8])
def test_degenerate_weights_converge_to_some_orthonormal_factors(w: torch.Tensor, rank: int) -> None:
    f = truncated_svd(w, rank, content_hash(w))
    assert (residuals(w, f) <= TOLERANCE * f.sigma[0]).all()
    np.testing.assert_allclose(f.u.T @ f.u, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose(f.vt @ f.vt.T, np.eye(rank), atol=1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(scale: float) -> None:
    w = weight(80, 60)
    f, g = (truncated_svd(x, 2, "0" * 64) for x in (w, w * scale))
    np.testing.assert_allclose(g.sigma / scale, f.sigma, rtol=1e-6)
    np.testing.assert_allclose(g.vt, f.vt, atol=1e-4)


def test_repeated_singular_values_are_warned_about() -> None:
    with pytest.warns(RuntimeWarning, match="layer: singular values 1 and 2 are closer"):
        cached_svd(torch.eye(30), 2, "layer", None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_name_the_module(value: float) -> None:
    w = weight(20, 10)
    w[3, 4] = value
    with pytest.raises(CapacityError, match="layer: its weight has values that are not finite"):
        truncated_svd(w, 2, "0" * 64, "layer")


def test_singular_values_that_stay_unresolved_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "_ROUNDS", 1)
    monkeypatch.setattr(factors, "_LIMIT", 12)
    with pytest.raises(CapacityError, match="layer: singular vectors did not converge"):
        truncated_svd(weight(400, 300), 2, "0" * 64, "layer")


def test_the_check_ends_the_work_between_products() -> None:
    left = iter(range(5))

    def check() -> None:
        if next(left, None) is None:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        truncated_svd(weight(400, 300), 2, "0" * 64, "layer", check)


def test_largest_entry_of_each_left_vector_is_positive() -> None:
    for seed in range(5):
        f = truncated_svd(weight(30, 20, seed), 3, f"{seed:064x}")
        assert (f.u[np.abs(f.u).argmax(axis=0), range(3)] > 0).all()


def test_another_start_gives_the_same_factors() -> None:
    w = weight(128, 384)
    first, second = truncated_svd(w, 2, "0" * 64), truncated_svd(w, 2, "f" * 64)
    np.testing.assert_allclose(first.u * first.sigma, second.u * second.sigma, atol=1e-4)
    np.testing.assert_allclose(first.vt, second.vt, atol=1e-5)


def test_close_singular_values_are_warned_about(tmp_path) -> None:
    u, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 3)))
    w = torch.from_numpy(u @ np.diag([2.0, 2.0 / 1.0005, 0.5]) @ np.eye(3, 10))
    for cache in (tmp_path, tmp_path):  # from the cache too
        with pytest.warns(RuntimeWarning, match="layer: singular values 1 and 2 are closer"):
            cached_svd(w, 2, "layer", cache)


def test_well_separated_singular_values_are_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5]))
        cached_svd(w, 2, "layer", None)


def test_rank_above_the_smaller_side_is_refused() -> None:
    w = weight(3, 50)
    with pytest.raises(CapacityError, match="rank 4 is above the smaller side of its shape 3×50"):
        truncated_svd(w, 4, content_hash(w))


def test_content_hash_sees_values_shape_and_dtype() -> None:
    w = weight(4, 6)
    changed = w.clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(9.0))
    hashes = {content_hash(x) for x in (w, changed, w.reshape(6, 4), w.double(), w.bfloat16())}
    assert len(hashes) == 5
    assert content_hash(w.clone()) == content_hash(w)
    assert content_hash(w.T) == content_hash(w.T.contiguous())


def test_content_hash_is_that_of_the_values_as_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        w = weight(40, 60).to(dtype)
        assert content_hash(w) == content_hash(w.float())
    assert content_hash(torch.arange(6)) != content_hash(torch.arange(6).int())
    assert len({content_hash(x) for x in (torch.tensor(1.0), torch.ones(1), torch.zeros(0), torch.zeros(0, 3))}) == 4


def test_content_hash_does_not_depend_on_its_slices() -> None:
    w = weight(3000, 700)
    whole = xxhash.xxh3_128(f"torch.float32|{tuple(w.shape)}|".encode() + w.numpy().tobytes()).hexdigest()
    assert content_hash(w) == whole


def test_cache_gives_back_the_same_factors(tmp_path) -> None:
    w = weight(64, 32)
    first = cached_svd(w, 2, "w", tmp_path)
    (path,) = tmp_path.glob("*.npz")
    written = path.stat().st_mtime_ns
    second = cached_svd(w, 2, "w", tmp_path)
    assert path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.u, second.u)
    np.testing.assert_array_equal(first.vt, second.vt)


def test_a_cached_weight_is_only_hashed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = weight(64, 32)
    first = cached_svd(w.bfloat16(), 2, "w", tmp_path)
    monkeypatch.setattr(factor_cache, "truncated_svd", None)
    second = cached_svd(w.bfloat16().float(), 2, "w", tmp_path)
    np.testing.assert_array_equal(first.u, second.u)


def test_every_rank_has_its_own_entry(tmp_path) -> None:
    w = weight(64, 32)
    assert [len(cached_svd(w, r, "w", tmp_path).sigma) for r in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        cached_svd(torch.diag(torch.tensor([4.0, 2.0, 1.0])), 2, "w", tmp_path / "file")


@pytest.mark.parametrize("damage", ["truncated", "one bit", "other weight"])
def test_damaged_cache_is_computed_anew(tmp_path, damage: str) -> None:
    w = weight(64, 32)
    good = cached_svd(w, 2, "w", tmp_path)
    (path,) = tmp_path.glob("*.npz")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "one bit":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 3] ^= 1
        path.write_bytes(raw)
    else:
        cached_svd(weight(64, 32, 1), 2, "w", tmp_path / "other")
        path.write_bytes(next((tmp_path / "other").glob("*.npz")).read_bytes())
    damaged = path.read_bytes()
    np.testing.assert_array_equal(cached_svd(w, 2, "w", tmp_path).u, good.u)
    assert path.read_bytes() != damaged
    np.testing.assert_array_equal(cached_svd(w, 2, "w", tmp_path).u, good.u)
