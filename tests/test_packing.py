"""Packing: each token stands once, knows what precedes it, and attends to its own sequence alone."""

import math
from itertools import groupby, pairwise

import pytest
import torch
from fakes import unhurried
from given import Sequences, given_rollout, sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from capacity.forward import attention
from capacity.forward.attention import Sight, attend
from capacity.forward.packing import pack
from capacity.forward.rollout import Rollout

HEADS, SIZE, VALUE_SIZE = 2, 4, 3


def rows_of(rollout: Rollout) -> list[tuple[list[int], list[int]]]:
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]
    return list(zip(prompts, rollout.completions(), strict=True))


def members(rollout: Rollout) -> list[list[int]]:
    """The packed tokens of each row, in the order of its sequence: its prompt's, then its own."""
    packed, found = pack(rollout), []
    prompt_ends = packed.prompts.lengths.cumsum(0).tolist()
    ends = (packed.prompts.tokens + packed.completions.lengths.cumsum(0)).tolist()
    rows = rows_of(rollout)
    for prompt, completion in rows:
        row = rows.index((prompt, completion))  # equal rows are computed once, where the first of them stands
        end, own = prompt_ends[row // packed.k], max(len(completion) - 1, 0)
        found.append([*range(end - len(prompt), end), *range(ends[row] - own, ends[row])])
    return found


@unhurried
@given(sequences(least=0))
def test_every_token_stands_once_and_predicts_the_next(rows: Sequences) -> None:
    rollout = given_rollout(*rows)
    packed = pack(rollout)
    shared = [len(list(same)) for _, same in groupby(rows[0])]
    assert packed.k == math.gcd(*shared)
    distinct = {(tuple(prompt), tuple(completion)) for prompt, completion in rows_of(rollout)}
    fed = sum(max(len(completion) - 1, 0) for _, completion in distinct)
    assert packed.tokens == sum(map(len, rows[0][:: packed.k])) + fed
    place = 0
    for row, ((prompt, completion), tokens) in enumerate(zip(rows_of(rollout), members(rollout), strict=True)):
        whole = prompt + completion
        assert packed.ids[tokens].tolist() == whole[: len(tokens)]
        assert packed.positions[tokens].tolist() == list(range(len(tokens)))
        for t, target in enumerate(completion):
            assert packed.target[place] == target
            assert packed.place[place] == row * rollout.completion_ids.shape[1] + t
            assert packed.predicting[place] == tokens[len(prompt) + t - 1]
            place += 1
    assert place == len(packed.target) == len(packed.predicting) == len(packed.place)


def test_prompts_that_differ_in_their_padding_alone_are_not_shared() -> None:
    rollout = given_rollout([[0, 5], [5]], [[3, 4], [3, 4]])
    assert rollout.prompt_ids[0].tolist() == rollout.prompt_ids[1].tolist() == [0, 5]
    packed = pack(rollout)
    assert (packed.k, packed.prompts.lengths.tolist()) == (1, [2, 1])


def one_by_one(
    q: Tensor, k: Tensor, v: Tensor, rollout: Rollout, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """Attention of each sequence by itself, computed in the plainest way."""
    found = v.new_zeros(HEADS, q.shape[1], v.shape[2])
    ends = pack(rollout).prompts.lengths.cumsum(0).tolist()
    prompts = [list(range(start, end)) for start, end in pairwise([0, *ends])]  # those of repeated rows among them
    for tokens in [*prompts, *members(rollout)]:
        for i, token in enumerate(tokens):
            seen = tokens[max(0, i + 1 - window) if window else 0 : i + 1]
            scores = (q[:, token : token + 1] @ k[:, seen].transpose(1, 2)) * scaling
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            attended = (scores.softmax(-1) @ v[:, seen]).squeeze(1)
            found = found.index_copy(1, torch.tensor([token]), attended[:, None])
    return found


@pytest.mark.parametrize("held", [attention._HELD, 0])
@settings(unhurried, max_examples=30)
@given(sequences(), st.sampled_from([None, 1, 2, 5]), st.sampled_from([None, 1.5]), st.integers(0, 99))
def test_attention_is_that_of_each_sequence_by_itself(
    held: int, rows: Sequences, window: int | None, softcap: float | None, seed: int
) -> None:
    rollout = given_rollout(*rows)
    packed = pack(rollout)
    generator = torch.Generator().manual_seed(seed)
    sizes = (SIZE, SIZE, VALUE_SIZE)
    q, k, v = (torch.randn(HEADS, packed.tokens, n, generator=generator, requires_grad=True) for n in sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_HELD", held)
        found = attend(q, k, v, Sight(packed), scaling=0.9, window=window, softcap=softcap)
    expected = one_by_one(q, k, v, rollout, 0.9, window, softcap)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    weights = torch.randn(found.shape, generator=generator)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
