import hashlib

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from capacity.adapters.projection import projection, projections

UP = "model.layers.0.mlp.up_proj"


def independent(seed: int, module: str, index: int, rank: int) -> np.ndarray:
    count = rank * rank
    digest = hashlib.shake_256(f"capacity-P-1|{seed}|{module}|{index}".encode()).digest(8 * count)
    top53 = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") >> 11 for i in range(count)]
    normal = ndtri((np.array(top53, dtype=np.float64) + 0.5) / 2**53)
    return (normal / np.sqrt(rank)).reshape(rank, rank)


@pytest.mark.parametrize(
    ("seed", "module", "index", "expected"),
    [
        (
            0,
            "model.layers.0.self_attn.q_proj",
            0,
            [[-0.7454335468021951, 0.298118285672174], [0.36602471528699204, 1.0298501521693104]],
        ),
        (
            1,
            "model.layers.3.mlp.down_proj",
            2,
            [[0.7662694958463592, 1.3598799046120218], [0.4120616265372503, 0.2568879386120552]],
        ),
        (7, "m", 0, [[0.6042509166606985]]),
    ],
)
def test_projection_keeps_its_golden_values(seed, module, index, expected):
    actual = projection(seed, module, index, len(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_projection_agrees_with_an_independent_implementation(seed, rank):
    for index in range(3):
        actual = projection(seed, UP, index, rank)
        np.testing.assert_allclose(actual, independent(seed, UP, index, rank), rtol=0, atol=1e-12)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_extreme_hashes_give_finite_entries(monkeypatch, byte):
    class Extreme:
        def __init__(self, message):
            pass

        def copy(self):
            return self

        def digest(self, length):
            return byte * length

    monkeypatch.setattr(hashlib, "shake_256", Extreme)
    entries = projection(0, UP, 0, 2)
    assert np.isfinite(entries).all()
    assert (np.abs(entries) > 5).all()


def test_projections_are_stacked_by_index():
    stacked = projections(3, UP, 4, 2)
    assert stacked.shape == (4, 2, 2)
    assert stacked.dtype == np.float64
    for index in range(4):
        np.testing.assert_array_equal(stacked[index], projection(3, UP, index, 2))


def test_more_entries_of_v_leave_the_first_matrices_as_they_are():
    np.testing.assert_array_equal(projections(0, UP, 5, 2)[:3], projections(0, UP, 3, 2))


@pytest.mark.parametrize("rank", [2, 16])
def test_entries_are_independent_normals_of_variance_one_over_rank(rank):
    """Five standard errors of mean, variance and lag-one correlation; Kolmogorov's distance at p = 0.001."""
    matrices = [projection(0, f"layers.{i}", 0, rank) for i in range(40_000 // rank**2)]
    entries = np.concatenate([m.ravel() for m in matrices]) * np.sqrt(rank)
    n = len(entries)
    assert abs(entries.mean()) < 5 / np.sqrt(n)
    assert abs(entries.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.mean(entries[1:] * entries[:-1])) < 5 / np.sqrt(n)
    assert stats.kstest(entries, "norm").pvalue > 0.001


def test_the_next_seed_is_no_shifted_copy():
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in range(6)]
    values = [set(np.ravel([projections(seed, m, 6, 2) for m in modules]).tolist()) for seed in range(3)]
    assert [len(v) for v in values] == [6 * 6 * 4] * 3
    assert not values[0] & values[1]
    assert not values[1] & values[2]
    assert not values[0] & values[2]


def test_module_name_and_index_matter():
    first = projection(0, UP, 0, 2)
    assert not np.isin(first, projection(0, "model.layers.1.mlp.up_proj", 0, 2)).any()
    assert not np.isin(first, projection(0, UP, 1, 2)).any()
