"""Importance weights and KL estimates against closed forms, verdicts of freshness on planted faults."""

import math

import numpy as np
import pytest
import torch
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.sampling.vllm.freshness import divergence_ratio, judge
from capacity.training.importance import effective_share, importance_weights, kl_from_trainer

TRAINER = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.3, 0.4]]))
SAMPLER = torch.log(torch.tensor([[0.25, 0.4, 0.3], [0.2, 0.2, 0.1]]))
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("none", [[1, 1, 1], [1, 1, 1]]),
        ("token-truncate", [[2, 0.5, 2], [0.5, 1.5, 1]]),
        ("token-mask", [[2, 0.5, 0], [0.5, 1.5, 1]]),
        ("sequence-truncate", [[2, 2, 2], [0.75, 0.75, 1]]),
        ("sequence-mask", [[0, 0, 0], [0.75, 0.75, 1]]),
    ],
)
def test_weights_by_hand(correction: str, expected: list[list[float]]) -> None:
    # Ratios of tokens: 2, ½, 3 and ½, 1½, (masked); of sequences: 3 and ¾.
    weights = importance_weights(TRAINER, SAMPLER, MASK, correction, cap=2.0 + 1e-5)  # type: ignore[arg-type]
    assert weights.numpy() == pytest.approx(np.array(expected, dtype=float), rel=1e-4)


def test_a_floor_bounds_from_below() -> None:
    truncated = importance_weights(TRAINER, SAMPLER, MASK, "token-truncate", cap=10, floor=0.9)
    dropped = importance_weights(TRAINER, SAMPLER, MASK, "token-mask", cap=10, floor=0.9)
    assert truncated[0, 1] == pytest.approx(0.9)
    assert dropped[0, 1] == 0


def test_weights_carry_no_gradient() -> None:
    trainer = TRAINER.clone().requires_grad_()
    assert not importance_weights(trainer, SAMPLER, MASK, "sequence-truncate", cap=2).requires_grad


@unhurried
@given(st.integers(0, 2**32 - 1), st.sampled_from(["token-truncate", "token-mask", "sequence-truncate"]))
def test_equal_engines_need_no_correction(seed: int, correction: str) -> None:
    logprobs = -torch.rand((3, 5), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(3, 5, dtype=torch.int64)
    weights = importance_weights(logprobs, logprobs, mask, correction, cap=2)  # type: ignore[arg-type]
    assert torch.equal(weights, torch.ones_like(weights))
    assert effective_share(weights, mask) == pytest.approx(1)


def test_sequence_weights_are_unbiased_without_a_bound() -> None:
    """The expected weight is 1, and the weighted mean of a function of sequences is the trainer's, by enumeration."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(3), 2)
    pairs = [(i, j) for i in range(3) for j in range(3)]
    trainer = torch.tensor([[math.log(p[0, i]), math.log(p[1, j])] for i, j in pairs])
    sampler = torch.tensor([[math.log(q[0, i]), math.log(q[1, j])] for i, j in pairs])
    drawn = sampler.sum(1).exp()
    weights = importance_weights(trainer, sampler, torch.ones(9, 2), "sequence-truncate", cap=1e9)[:, 0]
    value = torch.tensor([float(i * 10 + j * j) for i, j in pairs])
    assert float((drawn * weights).sum()) == pytest.approx(1)
    assert float((drawn * weights * value).sum()) == pytest.approx(float((trainer.sum(1).exp() * value).sum()))


def test_effective_share() -> None:
    mask = torch.ones(1, 4)
    assert effective_share(torch.tensor([[2.0, 0, 0, 0]]), mask) == pytest.approx(0.25)
    assert effective_share(torch.zeros(1, 4), mask) == 0


def test_kl_from_the_trainer_is_unbiased_under_another_sampler() -> None:
    """Summed over the vocabulary with the sampler's probabilities, the estimate is KL(trainer ‖ other) exactly."""
    rng = np.random.default_rng(1)
    trainer, other, sampler = (torch.from_numpy(np.log(rng.dirichlet(np.ones(6)))) for _ in range(3))
    exact = float((trainer.exp() * (trainer - other)).sum())
    terms = [kl_from_trainer(*(x[i].view(1, 1) for x in (trainer, other, sampler)), torch.ones(1, 1)) for i in range(6)]
    assert float(sum(sampler[i].exp() * terms[i] for i in range(6))) == pytest.approx(exact)
    assert min(float(t) for t in terms) >= 0


def _probe(seed: int, size: float, step: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of a base, of the step before and of the trainer now, that far from the base."""
    rng = np.random.default_rng(seed)
    base = -rng.exponential(1, 200)
    direction, turn = rng.normal(size=(2, 200))
    return base, base + size * (1 - step) * direction, base + size * (direction + step * turn)


@pytest.mark.parametrize("noise", [1e-6, 1e-3])
def test_a_swap_that_arrived_is_fresh(noise: float) -> None:
    base, previous, trainer = _probe(0, 0.1)
    engine = trainer + noise * np.random.default_rng(9).normal(size=200)
    found = judge(engine, trainer, {"base": base, "previous": previous}, noise)
    assert found.verdict == "fresh"
    assert found.arrived["base"] == pytest.approx(1, abs=0.05)
    assert found.divergence_ratio == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("rival", ["base", "previous"])
def test_a_swap_that_was_skipped_is_stale(rival: str) -> None:
    base, previous, trainer = _probe(1, 0.1)
    held = {"base": base, "previous": previous}
    engine = held[rival] + 1e-4 * np.random.default_rng(9).normal(size=200)
    found = judge(engine, trainer, held, 1e-4)
    assert (found.verdict, found.rival) == ("stale", rival)


def test_the_divergence_ratio_of_an_update_that_never_arrived_is_one() -> None:
    base, _, trainer = _probe(2, 0.1)
    assert divergence_ratio(base, trainer, base) == pytest.approx(1)
    assert judge(base, trainer, {"base": base}, 1e-6).divergence_ratio == pytest.approx(1)
    assert divergence_ratio(base, base, base) is None


def test_another_update_is_stale_too() -> None:
    base, previous, trainer = _probe(3, 0.1)
    engine = trainer + 0.2 * np.random.default_rng(9).normal(size=200)
    found = judge(engine, trainer, {"base": base, "previous": previous}, 1e-6)
    assert (found.verdict, found.rival) == ("stale", "other")


@pytest.mark.parametrize("size", [0.0, 1e-5, 3e-3])
def test_below_the_noise_floor_nothing_is_proven(size: float) -> None:
    base, previous, trainer = _probe(4, size)
    engine = trainer + 1e-3 * np.random.default_rng(9).normal(size=200)
    found = judge(engine, trainer, {"base": base, "previous": previous}, 1e-3)
    assert found.verdict == "unprovable"
    assert found.rival in ("base", "previous")


@unhurried
@given(st.integers(0, 10**6), st.floats(1e-7, 1e-1), st.floats(1e-4, 1), st.booleans())
def test_no_noise_up_to_the_floor_turns_a_verdict_around(seed: int, floor: float, size: float, arrived: bool) -> None:
    """Noise that points straight at the rival included: fresh is never called stale, nor stale fresh."""
    base, _, trainer = _probe(seed, size)
    line = (base - trainer) * (1 if arrived else -1)
    noise = line / np.sqrt(np.mean(line**2)) * floor
    engine = (trainer if arrived else base) + noise
    verdict = judge(engine, trainer, {"base": base}, floor).verdict
    assert verdict in (("fresh" if arrived else "stale"), "unprovable")
