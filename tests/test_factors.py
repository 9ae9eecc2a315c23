import warnings

import numpy as np
import pytest
import torch

from capacity.adapters.factors import TOLERANCE, cached_svd, content_hash, truncated_svd
from capacity.errors import CapacityError


def weight(d: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(d, k, generator=torch.Generator().manual_seed(seed))


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
    residual = np.linalg.norm(w.double().numpy().T @ f.u - f.vt.T * f.sigma, axis=0)
    assert (residual <= TOLERANCE * f.sigma[0]).all()


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


def test_cache_gives_back_the_same_factors(tmp_path) -> None:
    w = weight(64, 32)
    first = cached_svd(w, 2, "w", tmp_path)
    (path,) = tmp_path.glob("*.npz")
    written = path.stat().st_mtime_ns
    second = cached_svd(w, 2, "w", tmp_path)
    assert path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.u, second.u)
    np.testing.assert_array_equal(first.vt, second.vt)


@pytest.mark.parametrize("damage", ["truncated", "other weight"])
def test_damaged_cache_is_computed_anew(tmp_path, damage: str) -> None:
    w = weight(64, 32)
    good = cached_svd(w, 2, "w", tmp_path)
    (path,) = tmp_path.glob("*.npz")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        other = cached_svd(weight(64, 32, 1), 2, "w", tmp_path / "other")
        np.savez(path, u=other.u, sigma=other.sigma, vt=other.vt, next_sigma=other.next_sigma)
    np.testing.assert_array_equal(cached_svd(w, 2, "w", tmp_path).u, good.u)
    np.testing.assert_array_equal(cached_svd(w, 2, "w", tmp_path).u, good.u)
