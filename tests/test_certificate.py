"""The bound for the best of finitely many codes: exact values, and coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import binom

from capacity_analysis.lengths.certificate import certificate


@pytest.mark.parametrize(("items", "below"), [(1024, 0.074), (4096, 0.037)])
def test_the_exact_tail_is_tighter_than_hoeffding(items: int, below: float) -> None:
    """Hoeffding at 12 bits and δ = .05: 7.4 points below the observed at 1,024 items, 3.7 at 4,096."""
    found = certificate(items // 2, 0, items, 12, level=0.9)  # half of the rest is δ = .05
    assert 0 < 0.5 - found.lower < below
    assert np.sqrt((12 * np.log(2) + np.log(1 / 0.05)) / (2 * items)) == pytest.approx(below, abs=5e-4)


def test_each_limit_is_the_exact_binomial_tail() -> None:
    found = certificate(700, 400, 1000, 5)
    assert binom.sf(699, 1000, found.lower) == pytest.approx(0.025 / 32)
    assert binom.cdf(400, 1000, found.base_upper) == pytest.approx(0.025)
    assert found.certain_gain == found.lower - found.base_upper


@pytest.mark.parametrize(("correct", "lower"), [(0, 0.0), (10, (0.025 / 4) ** 0.1)])
def test_none_and_all_correct(correct: int, lower: float) -> None:
    assert certificate(correct, 10, 10, 2).lower == pytest.approx(lower)
    assert certificate(correct, 10, 10, 2).base_upper == 1.0


@pytest.mark.parametrize("bad", [(11, 0, 10, 2), (1, -1, 10, 2), (0, 0, 0, 2), (1, 1, 10, -1)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no certificate of"):
        certificate(*bad)


@pytest.mark.parametrize(("spread", "coverage"), [(0.0, 0.966), (0.05, 0.9745)])  # docs/abacus-message.md
def test_it_covers_the_truth_of_the_code_that_won(spread: float, coverage: float) -> None:
    """All codes answer the same items, so their scores are dependent, and the winner is chosen for its score."""
    rng = np.random.default_rng(1)
    bits, items, studies = 6, 256, 2000
    covered, gained = 0, []
    for _ in range(studies):
        truths = np.clip(0.5 + spread * rng.normal(size=2**bits), 0, 1)
        common, own = rng.random(items), rng.random((2**bits, items))
        shared = rng.random(items) < 0.5
        hits = np.where(shared, common, own) < truths[:, None]
        scores = hits.sum(1)
        winner = int(scores.argmax())
        base = int((rng.random(items) < 0.4).sum())
        found = certificate(int(scores[winner]), base, items, bits)
        covered += found.lower <= truths[winner] and found.base_upper >= 0.4
        gained.append(scores[winner] / items - found.lower)
    assert covered / studies == coverage >= 0.95
    assert np.mean(gained) < 0.2
