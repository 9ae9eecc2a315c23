"""Decodes through a model's own forward pass and transformers' cache: every causal language model can."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from capacity.adapters.lanes import Host, Pairs
from capacity.forward.rollout import positions


class GeneralDecoder:
    """A decoder for every causal language model of transformers.

    Args:
        model: the model, with or without PEFT's layers around its modules, in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.cache: Any = None
        self.mask = self.position = self.run = torch.empty(0)

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor, run_of: Tensor, row_of: Tensor, longest: int) -> Tensor:  # noqa: ARG002
        """Reads each prompt once. See `Decoder`."""
        config: Any = self.model.config
        self.cache = DynamicCache(config=config)
        self.of_runs(run_of)
        logits = self._forward(prompt_ids, prompt_mask, positions(prompt_mask))
        self.cache.batch_select_indices(row_of)
        self.mask = prompt_mask[row_of]
        self.of_runs(run_of[row_of])
        self.position = positions(prompt_mask)[row_of, -1:]
        return logits[row_of]

    def step(self, tokens: Tensor) -> Tensor:
        """Appends a token to each sequence. See `Decoder`."""
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        return self._forward(tokens[:, None], self.mask, self.position)

    def keep(self, rows: Tensor) -> None:
        """Keeps some sequences. See `Decoder`."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]
        self.of_runs(self.run[rows])

    def of_runs(self, run: Tensor) -> None:
        """Remembers the run of each row, (B,)."""
        self.run = run

    def adapted(self, width: int) -> AbstractContextManager[object]:  # noqa: ARG002
        """Returns the context of a forward pass over `width` tokens of each sequence."""
        return nullcontext()

    def _forward(self, ids: Tensor, mask: Tensor, position: Tensor) -> Tensor:
        with self.adapted(ids.shape[1]):
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = out.logits[:, -1]
        return logits


class HostDecoder(GeneralDecoder):
    """A general decoder for several runs on one base.

    Args:
        host: the copy of the base that the runs share.
        updates: the update of each run.
    """

    def __init__(self, host: Host, updates: Sequence[Pairs]) -> None:
        super().__init__(host.model)
        self.host, self.updates = host, updates
        self.counts: list[int] = []

    def adapted(self, width: int) -> AbstractContextManager[object]:
        """Returns the context in which each run's rows have its update."""
        return self.host.lanes([(pairs, n * width) for pairs, n in zip(self.updates, self.counts, strict=True)])

    def of_runs(self, run: Tensor) -> None:
        """Remembers the run of each row, and how many rows each run has."""
        super().of_runs(run)
        self.counts = torch.bincount(run, minlength=len(self.updates)).tolist()
