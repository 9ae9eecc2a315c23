"""Writes down the products of linear layers while a program works, and times the same products by themselves.

The seconds of the products alone are the floor of a part: no program that makes these products takes less.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench.clock import REST

_ATEN = torch.ops.aten
_LEAST, _CALLS = 1e-3, 3  # CPU seconds and calls that a product is repeated for, at least


@dataclass(frozen=True)
class Product:
    """A product of two matrices in fp32, (n, k) and (k, m), by their strides as well.

    Attributes:
        n, k, m: the sizes.
        left, right: the strides of the two matrices.
    """

    n: int
    k: int
    m: int
    left: tuple[int, ...]
    right: tuple[int, ...]

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "Product":
        """Returns the product of two matrices."""
        return cls(a.shape[0], a.shape[1], b.shape[1], a.stride(), b.stride())

    @property
    def flops(self) -> int:
        """Returns the floating-point operations of the product."""
        return 2 * self.n * self.k * self.m

    def seconds(self) -> float:
        """Returns the CPU seconds of one such product, a mean over several after a first one."""
        a = _matrix((self.n, self.k), self.left)
        b = _matrix((self.k, self.m), self.right)
        out = torch.empty(self.n, self.m)
        torch.mm(a, b, out=out)
        calls, began = 0, time.process_time()
        while calls < _CALLS or time.process_time() - began < _LEAST:
            torch.mm(a, b, out=out)
            calls += 1
        return (time.process_time() - began) / calls


def _matrix(shape: tuple[int, int], strides: tuple[int, ...]) -> Tensor:
    room = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.randn(room).as_strided(shape, strides)


@dataclass
class Calls:
    """What a part asked of torch.

    Attributes:
        operations: the number of operations of any kind.
        products: how often it made each product of two matrices.
    """

    operations: int = 0
    products: Counter[Product] = field(default_factory=Counter)


class Log(TorchDispatchMode):
    """Writes down, within its context, what each part asks of torch. It makes the work several times slower.

    Products of stacks of matrices do not count: they belong to attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, Calls] = {}
        self.name = REST

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one operation, and makes it."""
        calls = self.calls.setdefault(self.name, Calls())
        calls.operations += 1
        if func is _ATEN.mm.default:
            calls.products[Product.of(args[0], args[1])] += 1
        elif func in (_ATEN.addmm.default, _ATEN.addmm_.default):
            calls.products[Product.of(args[1], args[2])] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Writes what happens within the context down as a part's, unless another part is at work already."""
        if self.name != REST:
            yield
            return
        self.name = name
        try:
            yield
        finally:
            self.name = REST

    def cut(self) -> dict[str, Calls]:
        """Returns what each part has asked for since the last cut."""
        found, self.calls = self.calls, {}
        return found


def floors(calls: Mapping[str, Calls], square: float) -> dict[str, dict[str, float]]:
    """Times the products of each part by themselves.

    Args:
        calls: what each part asked for.
        square: floating-point operations per second of a large product.

    Returns:
        For each part: GFLOP of its products, their CPU seconds by themselves and at the rate of a large product, and
        the number of operations of any kind.
    """
    distinct = {product for part in calls.values() for product in part.products}
    seconds = {product: product.seconds() for product in distinct}
    found = {}
    for name, part in calls.items():
        flops = sum(count * product.flops for product, count in part.products.items())
        found[name] = {
            "gflop": flops / 1e9,
            "alone": sum(count * seconds[product] for product, count in part.products.items()),
            "square": flops / square,
            "operations": float(part.operations),
        }
    return found
