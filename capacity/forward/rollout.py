"""Prompts with their completions, as rectangles of token ids.

Shapes: B sequences, P prompt tokens (padded left), T new tokens (padded right).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """Prompts with completions, sampled or given.

    Attributes:
        prompt_ids, prompt_mask: (B, P), int64, padded left.
        completion_ids, completion_mask: (B, T), int64, padded right. The token that ends a completion is part of it.
        sampler_logprobs: (B, T), log-probabilities in nats of the drawn tokens under the distribution that they were
            drawn from. They are 0 where the mask is 0.
        plain_logprobs: (B, T), log-probabilities of the tokens at temperature 1, in nats. They are there if the sampler
            is the trained model itself and has measured them; else None.
        entropies: (B, T), entropies in nats of the next token at temperature 1, likewise.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    sampler_logprobs: Tensor
    plain_logprobs: Tensor | None = None
    entropies: Tensor | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the tensors that are there, by name."""
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None:
                yield field.name, tensor

    def completions(self) -> list[list[int]]:
        """Returns the token ids of each completion, without padding."""
        pairs = zip(self.completion_ids, self.completion_mask, strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in pairs]

    def rows(self, start: int, stop: int) -> "Rollout":
        """Returns the sequences from `start` to before `stop`."""
        return Rollout(**{name: tensor[start:stop] for name, tensor in self.tensors()})

    def selected(self, rows: Tensor) -> "Rollout":
        """Returns the sequences that `rows`, indices or booleans, names."""
        return Rollout(**{name: tensor[rows] for name, tensor in self.tensors()})

    def trimmed(self) -> "Rollout":
        """Returns the rollout without the columns that are padding in every row."""
        first = int(self.prompt_mask.any(0).int().argmax())
        last = int(self.completion_mask.any(0).sum())
        return Rollout(**{n: t[:, first:] if n.startswith("prompt") else t[:, :last] for n, t in self.tensors()})

    def to(self, device: torch.device) -> "Rollout":
        """Returns the rollout with its tensors on `device`."""
        return Rollout(**{name: tensor.to(device) for name, tensor in self.tensors()})


def pad_left(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Returns the ids and the mask, (B, P) each, of sequences that are padded on the left."""
    width = max(map(len, sequences))
    ids = [[pad] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def pad_right(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Returns the ids and the mask, (B, T) each, of sequences that are padded on the right."""
    width = max(map(len, sequences))
    ids = [list(s) + [pad] * (width - len(s)) for s in sequences]
    mask = [[1] * len(s) + [0] * (width - len(s)) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)


def positions(mask: Tensor) -> Tensor:
    """Returns the position of every token among the unmasked ones of its row, (B, P)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
