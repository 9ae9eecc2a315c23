"""A device that computes on the CPU, for tests that nothing is made on the wrong device and that little is waited for.

Its tensors say that they are on the device "meta", which no operation of torch's computes on, and hold a tensor of the
CPU. As on a GPU, an operation refuses tensors of both devices, unless the one of the CPU is a scalar or is copied.
Whatever the host has to wait for is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
aten = torch.ops.aten
_COPIES = (aten._to_copy.default, aten.copy_.default)
# The host waits for the device, because it needs a number or the size of a result.
_WAITS = {
    aten._local_scalar_dense.default: "number",
    aten.equal.default: "number",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "mask",
    aten._unique2.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}


class OnDevice(Tensor):
    """A tensor on the device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnDevice":
        found: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        found.inner = inner
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner!r})"

    def tolist(self) -> Any:
        """Copies the numbers to the host."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: the device is used outside of its context")


class _Operations(TorchDispatchMode):
    """Runs operations on the device."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in _leaves([args, list(kwargs.values())]) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, OnDevice)]
        target = kwargs.get("device")
        if not ours and target != DEVICE:
            return func(*args, **kwargs)
        strangers = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
        if ours and strangers and func not in _COPIES:
            raise RuntimeError(f"{func}: a tensor of the CPU among those of the device")
        if func in _WAITS:
            self.waits[_WAITS[func]] += 1
        if func is aten.index.Tensor or func is aten.index_put_.default:
            self.waits["mask"] += sum(i is not None and i.dtype == torch.bool for i in args[1])
        if func is aten._to_copy.default and target is not None and (target != DEVICE or not ours):
            self.waits["copy"] += 1
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        out = func(*_mapped(_inner, args), **{name: _mapped(_inner, value) for name, value in kwargs.items()})
        if target is not None and target != DEVICE:
            return out
        own = {id(x.inner): x for x in ours}  # operations in place give their own tensor back

        def placed(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return own[id(x)] if id(x) in own else OnDevice(x)

        return _mapped(placed, out)


class _FromNumbers(TorchFunctionMode):
    """Makes tensors of numbers. Torch would make one on "meta" without them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _leaves(x: Any) -> Iterator[Any]:
    """What stands in lists and tuples within one another."""
    if isinstance(x, list | tuple):
        for part in x:
            yield from _leaves(part)
    else:
        yield x


def _mapped(change: Callable[[Any], Any], x: Any) -> Any:
    """Lists and tuples within one another, with each thing in them changed. Torch's own function is much slower."""
    return type(x)(_mapped(change, part) for part in x) if isinstance(x, list | tuple) else change(x)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnDevice) else x


@contextmanager
def device() -> Iterator[Counter[str]]:
    """Lets `DEVICE` compute for the time of the context, and counts what the host waits for."""
    waits: Counter[str] = Counter()
    with _FromNumbers(), _Operations(waits):
        yield waits


def moved(model: nn.Module) -> nn.Module:
    """Moves a model to the device, in place."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                new = nn.Parameter(OnDevice(p.detach()), requires_grad=p.requires_grad)
                module._parameters[name] = made.setdefault(id(p), new)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = made.setdefault(id(b), OnDevice(b))
    return model
