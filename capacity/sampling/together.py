"""Samples for several runs on one base at once. Each row has the update and the random numbers of its run."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from capacity.adapters.lanes import Host, Pairs
from capacity.errors import CapacityError
from capacity.forward.rollout import Rollout, pad_left
from capacity.sampling.decoding.blocks import BlockDecoder
from capacity.sampling.decoding.complete import complete
from capacity.sampling.decoding.decoder import Decoder
from capacity.sampling.decoding.general import HostDecoder
from capacity.sampling.own_model import batch_size
from capacity.sampling.sampler import Request


@dataclass(frozen=True)
class SharedSampler:
    """A sampler for the requests of several runs.

    Attributes:
        base: the bare model that all runs share.
        host: the copy of it that takes lanes.
        fast: True if `BlockDecoder` takes the base.
        ends: the tokens that end a completion.
        pad: the token that fills up after it.
    """

    base: nn.Module
    host: Host
    fast: bool
    ends: Collection[int]
    pad: int

    def sample(self, requests: Sequence[Request], updates: Sequence[Pairs]) -> list[Rollout | CapacityError]:
        """Draws what each request asks for, from the base with its own update, or returns why that cannot be drawn.

        As many requests are drawn at once as fit. Each run's random numbers are those that it would draw alone.
        """
        return [found for part in self._parts(requests) for found in self._tried(requests[part], updates[part])]

    def _tried(self, requests: Sequence[Request], updates: Sequence[Pairs]) -> list[Rollout | CapacityError]:
        """Draws requests together. If that fails, each is drawn alone, so that only those fail that have to."""
        before = [request.rng.bit_generator.state for request in requests]
        try:
            return [*self._drawn(requests, updates)]
        except CapacityError as error:
            if len(requests) == 1:
                return [error]
        for request, state in zip(requests, before, strict=True):
            request.rng.bit_generator.state = state
        return [self._tried([request], [update])[0] for request, update in zip(requests, updates, strict=True)]

    def _parts(self, requests: Sequence[Request]) -> Iterator[slice]:
        """Yields neighbouring requests that fit together and have completions of one length."""
        device, start, rows, longest = next(self.base.parameters()).device, 0, 0, 0
        for i, request in enumerate(requests):
            tokens = max(longest, max(map(len, request.prompts)) + request.longest)
            fits = rows + len(request.prompts) <= batch_size(self.base, device, tokens)
            if i > start and not (fits and request.longest == requests[start].longest):
                yield slice(start, i)
                start, rows, tokens = i, 0, max(map(len, request.prompts)) + request.longest
            rows, longest = rows + len(request.prompts), tokens
        yield slice(start, len(requests))

    def _drawn(self, requests: Sequence[Request], updates: Sequence[Pairs]) -> list[Rollout]:
        device = next(self.base.parameters()).device
        counts = [len(request.prompts) for request in requests]
        ids, mask = pad_left([prompt for request in requests for prompt in request.prompts], self.pad)
        uniforms = [torch.from_numpy(r.rng.random((len(r.prompts), r.longest))) for r in requests]
        temperatures = torch.tensor([r.temperature for r in requests]).repeat_interleave(torch.tensor(counts))
        found = complete(
            self._decoder(updates),
            ids.to(device),
            mask.to(device),
            torch.cat(uniforms),
            temperature=temperatures.to(device),
            ends=self.ends,
            pad=self.pad,
            run=torch.arange(len(requests)).repeat_interleave(torch.tensor(counts)),
        )
        ends = torch.tensor(counts).cumsum(0).tolist()
        return [found.rows(end - count, end).trimmed() for end, count in zip(ends, counts, strict=True)]

    def _decoder(self, updates: Sequence[Pairs]) -> Decoder:
        return BlockDecoder(self.base, updates) if self.fast else HostDecoder(self.host, updates)
