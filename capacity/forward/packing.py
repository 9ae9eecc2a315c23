"""Packs the sequences of a step: every token stands once, and a prompt stands once for all samples of it.

Sequences that are equal stand once too: `rft` repeats its correct samples, and a policy draws short answers often.
Shapes: G prompts, k sequences of each, R = G·k sequences, N packed tokens, M completion tokens.
"""

from dataclasses import dataclass
from functools import reduce
from math import gcd

import torch
from torch import Tensor

from capacity.forward.rollout import Rollout


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths that stand one after the other among packed tokens.

    In attention they become a rectangle of `rows` × `width` cells, each row filled from the left.

    Attributes:
        rows, width: the shape of the rectangle.
        lengths: the number of tokens of each row, of shape (rows,).
        source: the token of each cell, counted from the first token of the first row, of shape (rows · width,). Cells
            behind the end of a row repeat a token; causal attention never looks at them.
        cell: the cell of each token, of shape (tokens,).
    """

    rows: int
    width: int
    lengths: Tensor
    source: Tensor
    cell: Tensor

    @classmethod
    def of(cls, lengths: Tensor) -> "Ragged":
        """Returns the rectangle for rows of these lengths, an integer tensor of shape (rows,)."""
        rows, width = len(lengths), int(lengths.max()) if len(lengths) else 0
        starts = lengths.cumsum(0) - lengths
        column = torch.arange(width, device=lengths.device)
        filled = column < lengths[:, None]
        source = torch.where(filled, starts[:, None] + column, 0).reshape(-1)
        return cls(rows, width, lengths, source, filled.reshape(-1).nonzero().squeeze(1))

    @property
    def tokens(self) -> int:
        """Returns the number of tokens of all rows."""
        return len(self.cell)


@dataclass(frozen=True)
class Packed:
    """Sequences as one row of tokens: first all prompts, then all completions without their last tokens.

    The last token of a completion predicts nothing, so it does not go through the model.

    Attributes:
        ids, positions: the tokens and their positions in their sequences, each of shape (N,).
        prompts: the G prompts.
        completions: the R completions without their last tokens. A row that repeats an earlier one has no tokens.
        k: the number of completions that continue each prompt; those of one prompt stand next to each other.
        predicting: the packed token whose logits predict each completion token, of shape (M,).
        place: where each completion token stands in a flattened (R, T) rectangle, of shape (M,).
        target: the completion tokens, of shape (M,).
    """

    ids: Tensor
    positions: Tensor
    prompts: Ragged
    completions: Ragged
    k: int
    predicting: Tensor
    place: Tensor
    target: Tensor

    @property
    def tokens(self) -> int:
        """Returns the number of packed tokens, N."""
        return len(self.ids)


def pack(rollout: Rollout) -> Packed:
    """Packs the sequences of a rollout. Neighbouring rows with the same prompt share it, and equal rows are one.

    If prompts repeat unequally often, each is computed once for as many rows as divide all these numbers.
    """
    ids, mask = rollout.prompt_ids, rollout.prompt_mask.bool()
    k = _shared(ids, mask)
    ids, mask = ids[::k], mask[::k]
    lengths = mask.sum(1)
    prompts = Ragged.of(lengths)
    completion_mask = rollout.completion_mask.bool()
    first = _first_equal(rollout)
    row = torch.arange(len(first), device=ids.device)
    fed_tokens = torch.where(first == row, (completion_mask.sum(1) - 1).clamp(min=0), 0)
    completions = Ragged.of(fed_tokens)
    width = rollout.completion_ids.shape[1]
    column = torch.arange(width, device=ids.device)
    prompt_lengths = lengths.repeat_interleave(k)
    fed = column < fed_tokens[:, None]
    return Packed(
        ids=torch.cat([ids[mask], rollout.completion_ids[fed]]),
        positions=torch.cat([(mask.cumsum(1) - 1)[mask], (prompt_lengths[:, None] + column)[fed]]),
        prompts=prompts,
        completions=completions,
        k=k,
        predicting=_predicting(prompts, completions, k, column)[first][completion_mask],
        place=completion_mask.reshape(-1).nonzero().squeeze(1),
        target=rollout.completion_ids[completion_mask],
    )


def _shared(ids: Tensor, mask: Tensor) -> int:
    """Returns the number of neighbouring rows that can share one prompt, the same for all prompts."""
    rows = len(ids)
    if rows < 2:
        return 1
    changes = ((ids[1:] != ids[:-1]) | (mask[1:] != mask[:-1])).any(1).nonzero().squeeze(1) + 1
    return reduce(gcd, changes.tolist(), rows)


def _first_equal(rollout: Rollout) -> Tensor:
    """Returns the first row with the same prompt and the same completion as each row, (R,)."""
    sides = ((rollout.prompt_ids, rollout.prompt_mask), (rollout.completion_ids, rollout.completion_mask))
    whole = torch.cat([ids.masked_fill(mask == 0, -1) for ids, mask in sides], 1)
    _, which = torch.unique(whole, dim=0, return_inverse=True)
    row = torch.arange(len(whole), device=whole.device)
    return torch.full_like(row, len(whole)).scatter_reduce(0, which, row, "amin")[which]


def _predicting(prompts: Ragged, completions: Ragged, k: int, column: Tensor) -> Tensor:
    """Returns the packed token that predicts each cell of a (R, T) rectangle; cells without a token are arbitrary."""
    last_of_prompt = (prompts.lengths.cumsum(0) - 1).repeat_interleave(k)
    starts = prompts.tokens + completions.lengths.cumsum(0) - completions.lengths
    return torch.where(column == 0, last_of_prompt[:, None], starts[:, None] + column - 1)
