from typing import Any

import pytest
import torch
from sampled import sample

from capacity.forward.model import padded_logits
from capacity.forward.rollout import pad_left, pad_right
from capacity.sampling.draw import draw
from capacity.sampling.likelihood import token_logprobs
from capacity.tasks.abacus import AbacusTask
from capacity.training.batches import encode_prompts


def rollout_of(model: Any, tokenizer: Any, count: int, temperature: float, seed: int = 0) -> Any:
    ids, mask = pad_left(encode_prompts(tokenizer, AbacusTask().items("test", count)), tokenizer.pad_token_id)
    uniforms = torch.rand(count, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample(
        model, ids, mask, uniforms, temperature=temperature, ends=[tokenizer.eos_token_id], pad=tokenizer.pad_token_id
    )


def test_greedy_rollout_equals_transformers_generate(model: Any, tokenizer: Any) -> None:
    ours = rollout_of(model, tokenizer, 32, 0.0)
    theirs = model.generate(ours.prompt_ids, attention_mask=ours.prompt_mask, do_sample=False, max_new_tokens=24)
    completions = theirs[:, ours.prompt_ids.shape[1] :]
    width = min(completions.shape[1], ours.completion_ids.shape[1])
    assert torch.equal(completions[:, :width], ours.completion_ids[:, :width])
    assert not completions[:, width:].any()


def test_sampler_log_probabilities_equal_one_forward_pass(model: Any, tokenizer: Any) -> None:
    rollout = rollout_of(model, tokenizer, 64, 0.7)
    with torch.no_grad():
        logprobs = token_logprobs(padded_logits(model, rollout), rollout.completion_ids, 0.7)
    mask = rollout.completion_mask
    torch.testing.assert_close(rollout.sampler_logprobs, logprobs * mask, atol=2e-4, rtol=1e-4)


def test_completions_end_at_the_end_token_and_are_padded_after_it(model: Any, tokenizer: Any) -> None:
    rollout = rollout_of(model, tokenizer, 64, 1.0)
    for ids, mask in zip(rollout.completion_ids.tolist(), rollout.completion_mask.tolist(), strict=True):
        length = sum(mask)
        assert mask == [1] * length + [0] * (len(mask) - length)
        assert tokenizer.eos_token_id not in ids[: length - 1]
        assert set(ids[length:]) <= {tokenizer.pad_token_id}
    ended = [
        ids[sum(m) - 1]
        for ids, m in zip(rollout.completion_ids.tolist(), rollout.completion_mask.tolist(), strict=True)
    ]
    assert ended.count(tokenizer.eos_token_id) > 32


def test_rows_do_not_depend_on_their_batch(model: Any, tokenizer: Any) -> None:
    items = AbacusTask().items("test", 16)
    uniforms = torch.rand(16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends, pad = [tokenizer.eos_token_id], tokenizer.pad_token_id
    ids, mask = pad_left(encode_prompts(tokenizer, items), pad)
    whole = sample(model, ids, mask, uniforms, temperature=1.0, ends=ends, pad=pad)
    wider = torch.cat([torch.full((16, 3), pad), ids], 1), torch.cat([torch.zeros(16, 3, dtype=torch.long), mask], 1)
    padded = sample(model, *wider, uniforms, temperature=1.0, ends=ends, pad=pad)
    assert torch.equal(whole.completion_ids, padded.completion_ids)
    for row in (0, 7):
        alone = sample(
            model, ids[row : row + 1], mask[row : row + 1], uniforms[row : row + 1], temperature=1.0, ends=ends, pad=pad
        )
        width = alone.completion_ids.shape[1]
        assert torch.equal(whole.completion_ids[row, :width], alone.completion_ids[0])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    n = 200_000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw(logits.expand(n, -1), uniforms, temperature)
    expected = (logits[0] / temperature).softmax(0)
    share = torch.bincount(drawn.tokens, minlength=4) / n
    assert bool(((share - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-9).all())
    torch.testing.assert_close(drawn.logprobs, expected.log()[drawn.tokens])
    plain = logits[0].softmax(0)
    torch.testing.assert_close(drawn.plain_logprobs, plain.log()[drawn.tokens])
    torch.testing.assert_close(drawn.entropies[0], -(plain * plain.log()).sum())


def test_extreme_uniforms_draw_possible_tokens() -> None:
    logits = torch.tensor([[0.0, -1e9, 0.0, -1e9]])
    assert draw(logits, torch.tensor([0.0], dtype=torch.float64), 1.0).tokens.item() == 0
    assert draw(logits, torch.tensor([1 - 2**-53], dtype=torch.float64), 1.0).tokens.item() == 2


def test_padding_sides() -> None:
    assert pad_left([[5], [6, 7]], 0)[0].tolist() == [[0, 5], [6, 7]]
    assert pad_right([[5], [6, 7]], 0)[1].tolist() == [[1, 0], [1, 1]]
