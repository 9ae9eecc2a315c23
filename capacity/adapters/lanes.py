"""Low-rank updates of several runs on one frozen base: each token knows its run.

The tokens of a run stand next to each other, in a lane. All lanes go through a frozen weight in one product; the update
of each run is added to its own lane. So a run's numbers do not depend on which runs are beside it, but for the rounding
of products whose rows are few.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capacity.adapters.kinds.low_rank import LowRankModel
from capacity.adapters.linear import Lane, adapted_linear, fuses
from capacity.adapters.model import AdaptedModel

Pairs = dict[str, tuple[Tensor, Tensor]]  # A (r, k) and B (d, r) of the adapted modules, by name


class LaneLinear(nn.Module):
    """A frozen linear that adds the update of each lane, whatever the linear is.

    Args:
        linear: an `nn.Linear`, a Conv1D or a quantised linear.
    """

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.lanes: Sequence[Lane] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (…, k) → (…, d). Lanes count tokens of the flattened inputs."""
        flat = x.reshape(-1, x.shape[-1])
        linear: Any = self.linear
        if type(linear) is nn.Linear and fuses(linear.weight, linear.bias, flat, self.lanes):
            found = adapted_linear(flat, linear.weight, linear.bias, self.lanes)
            return found.view(*x.shape[:-1], len(linear.weight))
        y: Tensor = linear(x)
        rows = y.reshape(-1, y.shape[-1])
        parts, end = [], 0
        for lane in self.lanes:
            own = flat[lane.start : lane.stop].to(lane.a.dtype)
            update = F.linear(F.linear(own, lane.a), lane.b)
            parts += [rows[end : lane.start], (rows[lane.start : lane.stop] + update).to(y.dtype)]
            end = lane.stop
        return torch.cat([*parts, rows[end:]]).view(y.shape)


class Host:
    """A copy of the base that runs share, through which the tokens of several runs go together.

    Args:
        base: the bare model without any update. The copy shares its weights.
        runs: models of the runs, each a copy of the same base with its own low-rank update.
    """

    def __init__(self, base: nn.Module, runs: Sequence[LowRankModel]) -> None:
        self.model = shared_copy(base)
        self.linears: dict[str, LaneLinear] = {}
        for name in dict.fromkeys(shape.name for run in runs for shape in run.shapes):
            parent, _, own = name.rpartition(".")
            self.linears[name] = LaneLinear(self.model.get_submodule(name))
            setattr(self.model.get_submodule(parent), own, self.linears[name])

    @contextmanager
    def lanes(self, tokens: Sequence[tuple[Pairs, int]]) -> Iterator[nn.Module]:
        """The model with lanes, for the time of the context.

        Args:
            tokens: for each lane the update and the number of its tokens, in the order in which they stand. A lane of
                the untrained model has no pairs.
        """
        bounds, start = [], 0
        for pairs, count in tokens:
            bounds.append((pairs, start, start := start + count))
        try:
            for name, linear in self.linears.items():
                linear.lanes = [Lane(begin, end, *pairs[name]) for pairs, begin, end in bounds if name in pairs]
            yield self.model
        finally:
            for linear in self.linears.values():
                linear.lanes = ()


def pairs_of(adapted: AdaptedModel) -> Pairs:
    """Returns A (r, k) and B (d, r) of each adapted module by its name in the bare model, differentiable."""
    if not isinstance(adapted, LowRankModel) or adapted.is_off:
        return {}
    return {shape.name: adapted.pair(adapted.layer(shape)) for shape in adapted.shapes}


def shared_copy(model: nn.Module) -> nn.Module:
    """Returns a copy of a model's modules that holds the same parameters and buffers."""
    kept = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, kept)
