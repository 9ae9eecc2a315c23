"""Computes the loss of a whole step and its gradient a few rows at a time, without holding the whole step.

A loss that is a sum over rows with a normaliser of the whole step has the gradient of its slices' sum. Each slice goes
forward and backward before the next, so only one slice's activations are held.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import Rollout
from capacity.models.device_memory import free_gpu_memory
from capacity.plan.memory import kept_numbers, rows_at_once, update_bytes
from capacity.plan.model_names import parse_model
from capacity.plan.models import model_shape


class RowsAtOnce:
    """How many rows of a rollout go through the model together on its device, by `capacity.plan.memory`.

    Args:
        adapted: the model with its update, on its device.
        model: the name of the model.
    """

    def __init__(self, adapted: AdaptedModel, model: str) -> None:
        _, self.shape = model_shape(model)
        self.dtype = parse_model(model).dtype
        self.extra = kept_numbers(adapted.adapter, self.shape, self.dtype)
        weights = sum(p.numel() * p.element_size() for p in adapted.bare.parameters() if not p.requires_grad)
        full = adapted.adapter.every_weight
        own = 4 * adapted.trained_parameters if full else 0  # the trained weights themselves
        self.resident = weights + own + update_bytes(adapted.trained_parameters, full=full)
        device = next(adapted.model.parameters()).device
        # Another engine may hold a part of the GPU: what counts is what is free, and what torch has taken already.
        self.device_bytes = free_gpu_memory(device)

    def __call__(self, rollout: Rollout, *, backward: bool = True) -> int:
        """How many rows as long as those of `rollout` fit at once; more of them fit without a backward pass."""
        return rows_at_once(
            self.shape,
            prompt_tokens=rollout.prompt_ids.shape[1],
            new_tokens=rollout.completion_ids.shape[1],
            dtype=self.dtype,
            resident=self.resident,
            device_bytes=self.device_bytes,
            backward=backward,
            extra=self.extra,
        )


def slice_sizes(rows: int, at_once: int) -> list[int]:
    """The sizes of as few slices as `at_once` allows, as even as can be: 10 rows, 4 at once → 4, 3, 3."""
    count = -(-rows // at_once)
    return [rows // count + (i < rows % count) for i in range(count)]


def joined(parts: Sequence[Rollout], pad: int) -> Rollout:
    """One rollout of several whose prompts were padded together, with completions padded with `pad`."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.completion_ids.shape[1] for part in parts)

    def widened(name: str, fill: int) -> Tensor:
        tensors: list[Tensor] = [getattr(part, name) for part in parts]
        return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1]), value=fill) for t in tensors])

    measured = [name for name, _ in parts[0].tensors() if name in ("plain_logprobs", "entropies")]
    return Rollout(
        torch.cat([part.prompt_ids for part in parts]),
        torch.cat([part.prompt_mask for part in parts]),
        widened("completion_ids", pad),
        **{name: widened(name, 0) for name in ("completion_mask", "sampler_logprobs", *measured)},
    )


class _Sum(torch.autograd.Function):
    """A sum whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:  # noqa: ARG004
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = upstream
        known = ctx.gradients if bool(scale == 1) else [g if g is None else g * scale for g in ctx.gradients]
        return (None, None, *known)


def summed(
    slices: Iterable[Callable[[], Tensor]],
    parameters: Sequence[torch.nn.Parameter],
    add_up: Callable[[Sequence[Tensor]], None] | None = None,
) -> Tensor:
    """Σ of the slices' losses, differentiable once in `parameters` as if all had been computed together.

    Args:
        slices: functions that give their shares of the loss; each is called when the graph of the one before is gone.
        parameters: the parameters whose gradient is wanted; what they have gathered so far is left as it is.
        add_up: replaces tensors by their sums over processes that have other slices of the same loss.
    """
    before = [p.grad for p in parameters]
    value: Tensor | None = None
    try:
        for p in parameters:
            p.grad = None
        for share in slices:
            loss = share()
            torch.autograd.backward(loss)
            value = loss.detach() if value is None else value + loss.detach()
        gradients = [p.grad for p in parameters]
    finally:
        for p, gathered in zip(parameters, before, strict=True):
            p.grad = gathered
    if value is None or add_up is not None:  # without a slice, here or in this process, gradients are zeros, not absent
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        value = torch.zeros((), device=parameters[0].device) if value is None else value
    if add_up is not None:
        add_up([value, *(g for g in gradients if g is not None)])
    total: Tensor = _Sum.apply(value, gradients, *parameters)  # type: ignore[no-untyped-call]
    return total
