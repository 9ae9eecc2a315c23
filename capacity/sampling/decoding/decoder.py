"""What every decoder does: it holds the keys and values of the sequences that are being completed."""

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """Predicts the next tokens of B sequences, whose keys and values it keeps.

    Shapes: G different prompts of P tokens (padded left), V vocabulary.
    """

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor, run_of: Tensor, row_of: Tensor, longest: int) -> Tensor:
        """Reads each prompt once and returns the logits of the first tokens, (B, V).

        Args:
            prompt_ids, prompt_mask: the prompts, (G, P) each.
            run_of: the number of each prompt's run among the runs of this decoder, (G,), in ascending order.
            row_of: the prompt of each sequence, (B,).
            longest: the largest number of tokens of a completion.
        """

    def step(self, tokens: Tensor) -> Tensor:
        """Appends a token to each sequence, (B,), and returns the logits of the next ones, (B, V)."""

    def keep(self, rows: Tensor) -> None:
        """Keeps the sequences that `rows` names, by increasing indices, and forgets the others."""
