import math

import pytest
import torch
from scipy.special import betaln

from capacity.codes import kt_code_bits
from capacity.forward.predictions import Predictions
from capacity.sampling import likelihood
from capacity.training import losses
from capacity.training.advantage import dead_groups, group_advantages, group_hits


def random_case(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, 11, generator=g, requires_grad=True)
    ids = torch.randint(0, 11, (6, 5), generator=g)
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in (5, 3, 1, 4, 5, 2)])
    return logits, ids, mask


def test_sft_loss_equals_cross_entropy_over_completion_tokens() -> None:
    logits, ids, mask = random_case()
    loss = losses.sft_loss(likelihood.token_logprobs(logits, ids), mask)
    labels = ids.masked_fill(mask == 0, -100)
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 11), labels.reshape(-1))
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected_grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(grad, expected_grad)


def test_grpo_loss_equals_a_loop_over_sequences_and_tokens() -> None:
    logits, ids, mask = random_case()
    old = likelihood.token_logprobs(logits, ids).detach() + 0.4 * torch.randn(
        6, 5, generator=torch.Generator().manual_seed(2)
    )
    advantages = torch.tensor([1.0, -0.5, 0.0, 2.0, -1.5, 0.3])
    loss = losses.grpo_loss(likelihood.token_logprobs(logits, ids), old, advantages, mask, epsilon=0.2)
    total = 0.0
    for b in range(6):
        terms = []
        for t in range(int(mask[b].sum())):
            p = torch.softmax(logits[b, t], 0)[ids[b, t]]
            ratio = p / math.exp(old[b, t])
            value, gain = float(ratio.detach()), float(advantages[b])
            clipped = (value > 1.2 and gain > 0) or (value < 0.8 and gain < 0)
            terms.append((1.2 if value > 1 else 0.8) * advantages[b] if clipped else ratio * advantages[b])
        total = total - sum(terms) / len(terms) / 6
    torch.testing.assert_close(loss, total)
    (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(grad, expected)


def test_advantages_are_normalised_within_each_group() -> None:
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])
    first = group_advantages(rewards, 4, epsilon=1e-4)
    deviation = 0.5  # of one success in four, with n − 1
    expected = torch.tensor([0.75, -0.25, -0.25, -0.25]) / (deviation + 1e-4)
    torch.testing.assert_close(first[:4], expected)
    assert torch.equal(first[4:], torch.zeros(4))


def test_dead_groups_are_those_without_a_difference() -> None:
    rewards = torch.tensor([1.0, 1, 0, 0, 0, 1])
    assert group_hits(rewards, 2) == [2, 0, 1]
    assert dead_groups([2, 0, 1], 2) == 2


def predicted(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> Predictions:
    """Every cell has a row of logits of its own, as a padded pass gives them."""
    real = mask.bool()
    row = torch.arange(int(real.sum()))
    shape = (ids.shape[0], ids.shape[1])
    return Predictions(logits[real], row, ids[real], real.reshape(-1).nonzero().squeeze(1), shape)


def test_entropy_and_kl_match_torch_distributions() -> None:
    logits, ids, mask = random_case()
    other = random_case(5)[0]
    p, q = torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=other)
    weight = mask / mask.sum()
    ours, theirs = (predicted(x, ids, mask) for x in (logits, other))
    assert ours.mean_entropy() == pytest.approx(float((p.entropy() * weight).sum()), rel=1e-5)
    expected = (torch.distributions.kl_divergence(p, q) * weight).sum()
    assert ours.mean_kl(theirs) == pytest.approx(float(expected), rel=1e-5)
    assert ours.mean_kl(ours) == 0.0


def test_sampled_kl_is_unbiased_and_zero_for_equal_log_probabilities() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (torch.randn(7, generator=g).log_softmax(0) for _ in range(2))
    n = 400_000
    tokens = torch.multinomial(p.exp(), n, replacement=True, generator=g)
    estimate = likelihood.mean_sampled_kl(p[tokens][None], q[tokens][None], torch.ones(1, n))
    d = (q - p)[tokens]
    error = float((d.expm1() - d).std()) / math.sqrt(n)
    assert abs(float(estimate) - float((p.exp() * (p - q)).sum())) < 4 * error
    assert float(likelihood.mean_sampled_kl(p[None], p[None], torch.ones(1, 7))) == 0.0


def test_code_length_is_the_sum_of_bits_of_the_tokens() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], [[0.125, 0.875], [0.3, 0.7], [0.2, 0.8]]]))
    found = predicted(logits, torch.zeros(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert found.code_length_bits() == pytest.approx(1 + 2 + 3, abs=1e-6)


def test_krichevsky_trofimov_code_has_the_published_length() -> None:
    assert kt_code_bits(3, 10) == pytest.approx(10.840129, abs=5e-7)


@pytest.mark.parametrize(("hits", "trials"), [(0, 8), (8, 8), (3, 8), (1, 2)])
def test_krichevsky_trofimov_code_is_the_beta_binomial_of_one_sequence(hits: int, trials: int) -> None:
    expected = -(betaln(hits + 0.5, trials - hits + 0.5) - betaln(0.5, 0.5)) / math.log(2)
    assert kt_code_bits(hits, trials) == pytest.approx(expected, abs=1e-10)
