"""Decodes through a model's own forward pass and transformers' cache: every causal language model can."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from capacity.adapters.lanes import Host, Pairs
from capacity.forward.rollout import positions
from capacity.sampling.decoding.cache import roomy_cache


class GeneralDecoder:
    """A decoder for every causal language model of transformers.

    Models that take no cache, such as Mamba, read the whole sequences again for each token.

    Args:
        model: the model, with or without PEFT's layers around its modules, in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        bare = getattr(model, "get_base_model", lambda: model)()
        self.takes_cache = "past_key_values" in inspect.signature(bare.forward).parameters
        self.cache: Any = None
        self.ids = self.mask = self.run = torch.empty(0)

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor, run_of: Tensor, row_of: Tensor, longest: int) -> Tensor:
        """Reads each prompt once. See `Decoder`."""
        config: Any = self.model.config
        self.cache = roomy_cache(config, prompt_ids.shape[1] + longest) if self.takes_cache else None
        self.ids, self.mask = prompt_ids, prompt_mask
        self.of_runs(run_of)
        logits = self._read(prompt_ids.shape[1])
        self.keep(row_of)
        return logits[row_of]

    def step(self, tokens: Tensor) -> Tensor:
        """Appends a token to each sequence. See `Decoder`."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        return self._read(1)

    def keep(self, rows: Tensor) -> None:
        """Keeps some sequences. See `Decoder`."""
        if self.cache is not None:
            self.cache.reorder_cache(rows)  # which every kind of cache can, whatever the number of rows
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        self.of_runs(self.run[rows])

    def of_runs(self, run: Tensor) -> None:
        """Remembers the run of each row, (B,)."""
        self.run = run

    def adapted(self, width: int) -> AbstractContextManager[object]:  # noqa: ARG002
        """Returns the context of a forward pass over `width` tokens of each sequence."""
        return nullcontext()

    def _read(self, width: int) -> Tensor:
        """The logits after the last tokens, from the last `width` ones and the cache, or from all without a cache."""
        cached = {} if self.cache is None else {"past_key_values": self.cache}
        width = width if cached else self.ids.shape[1]
        with self.adapted(width):
            out = self.model(
                input_ids=self.ids[:, -width:],
                attention_mask=self.mask,
                position_ids=positions(self.mask)[:, -width:],
                use_cache=bool(cached),
                logits_to_keep=1,
                **cached,
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
