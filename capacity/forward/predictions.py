"""What a model predicts of the completion tokens of some sequences: log-probabilities, entropies, divergences.

Shapes: R sequences, T completion tokens at most, M completion tokens in all, U rows of logits, V vocabulary. The first
tokens of all samples of a prompt are predicted by one row of logits, so U may be less than M.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """The logits that predict completion tokens, each row once.

    Attributes:
        logits: of shape (U, V), fp32.
        row: the row of logits that predicts each completion token, of shape (M,).
        target: the completion tokens, of shape (M,).
        place: where each completion token stands in a flattened (R, T) rectangle, of shape (M,).
        shape: R and T.
    """

    logits: Tensor
    row: Tensor
    target: Tensor
    place: Tensor
    shape: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Returns the number of completion tokens, M."""
        return len(self.target)

    def logprobs(self, temperature: float = 1.0) -> Tensor:
        """Returns the log-probability of every completion token in nats, (R, T); 0 where there is no token."""
        scaled = self.logits if temperature == 1.0 else self.logits / temperature
        found = scaled[self.row, self.target] - scaled.logsumexp(-1)[self.row]
        rectangle = found.new_zeros(self.shape[0] * self.shape[1])
        return rectangle.index_copy(0, self.place, found).view(self.shape)

    @torch.no_grad()
    def code_length_bits(self) -> float:
        """Returns Σ −log₂ p over the completion tokens."""
        return float(-self.logprobs().double().sum()) / math.log(2)

    @torch.no_grad()
    def code_lengths_bits(self) -> Tensor:
        """Returns Σ −log₂ p over the completion tokens of each sequence, (R,), float64."""
        return -self.logprobs().double().sum(1) / math.log(2)

    @torch.no_grad()
    def mean_entropy(self) -> float:
        """Returns the mean entropy of the next token over the completion tokens, in nats."""
        logprobs = self.logits.log_softmax(-1)
        return self._mean(-(logprobs.exp() * logprobs).sum(-1))

    @torch.no_grad()
    def mean_kl(self, other: "Predictions") -> float:
        """Returns the mean KL(this ‖ other) over the completion tokens in nats, exact in the vocabulary."""
        logprobs, others = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return self._mean((logprobs.exp() * (logprobs - others)).sum(-1))

    def _mean(self, of_rows: Tensor) -> float:
        """Returns the mean over completion tokens of what each row of logits gives."""
        return float(of_rows[self.row].mean()) if self.tokens else 0.0


def rows_of(predicting: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the packed tokens whose logits are needed, each once and in order, and the row of each completion token.

    Args:
        predicting: the packed token that predicts each completion token, of shape (M,).
    """
    kept, row = torch.unique(predicting, return_inverse=True)
    return kept, row
