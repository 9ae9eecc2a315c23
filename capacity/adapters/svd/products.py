"""Products of a large frozen weight with a few vectors at a time, each in one pass over its memory."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from capacity.adapters.svd.lapack import Array, orthonormal

_CALL = 2**19  # multiply-adds of one matrix product: its slice of W stays in cache, and BLAS has kernels for small ones
_SMALL = 2**21  # entries of a W of which a float64 copy, 16 MB, is worth its memory
_FLAT = 1024  # below this length of its smaller side, passes over W always cost less than WᵀW
_LEVELS = 127  # of an entry rounded to 8 bits, on either side of 0
_LONG = 1024  # of the larger side for every vector kept; below, rounding W saves less than the rounds it adds cost
_PEAK = 8  # of the largest entry over their root mean square; above, 8 bits are too few


def largest_magnitude(w: torch.Tensor) -> float:
    """The largest magnitude of an entry; not finite if some entry is not."""
    low, high = torch.aminmax(w)
    return float(torch.maximum(-low, high))


def _rounded_gram(w: torch.Tensor, largest: float) -> Array:
    """The smaller of WᵀW and WWᵀ for W rounded to 8 bits. Its sums are exact, so they are the same on every machine."""
    rounded = torch.empty(w.shape, dtype=torch.int8)
    for start in range(0, len(w), 64):
        rows = slice(start, start + 64)
        rounded[rows] = (w[rows] * (_LEVELS / largest)).round_()
    sides = rounded if w.shape[0] < w.shape[1] else rounded.T
    gram = torch.empty(len(sides), len(sides))
    for start in range(0, len(sides), 256):
        block = slice(start, start + 256)
        products = torch._int_mm(sides[block], sides[start:].T)
        gram[block, start:], gram[start:, block] = products, products.T
    scaled: Array = gram.mul_((largest / _LEVELS) ** 2).numpy()
    return scaled


class Sides:
    """Products of vectors with a weight W, with Wᵀ and with both, where W is seen from its smaller side, of length n.

    Here W has at least as many rows as columns; an array that has fewer stands for its transpose.
    """

    def __init__(self, w: Array, check: Callable[[], None]) -> None:
        self.w = w
        self.check = check
        self.wide = w.shape[0] < w.shape[1]
        self.n = min(w.shape)
        # A small W is kept in float64 too; of a large one a few rows at a time are converted, again and again.
        self.exact = w.astype(np.float64) if w.size <= _SMALL else w
        self.tall = w
        self.gram: Array | None = None
        self.rounded = False  # it is that of W rounded to 8 bits

    def prepare(self, x: Array, keep: int) -> None:
        """Chooses how `near` works for so many vectors kept, from the products of X with a part of W.

        Passes over W are cheap if few are needed, and that is so if some singular values stand out. If the squares
        of all of them add up to many times the largest, none does, and the matrix WᵀW is worth its price.
        """
        if self.n >= _FLAT and self.w.size >= 2 * self.n**2 and self.w.dtype == np.float32:
            part = Sides(self.w[:, : 2 * self.n] if self.wide else self.w[: 2 * self.n], self.check)
            image = part.left(part.right(orthonormal(part.left(part.right(x)))))
            squares = float(torch.linalg.vector_norm(torch.from_numpy(part.w))) ** 2
            if squares > self.n / 4 * float(np.linalg.norm(image, axis=1).max()):
                self._multiply(squares / part.w.size, keep)
        if self.wide and self.gram is None:
            self.tall = torch.from_numpy(self.w).T.contiguous().numpy()

    def _multiply(self, mean_square: float, keep: int) -> None:
        """Forms WᵀW. W is rounded first where that pays, the CPU is fast at it, and no entry of W stands out."""
        w, length = torch.from_numpy(self.w), max(self.w.shape)
        largest = largest_magnitude(w)
        fast = torch._C._has_mkldnn and torch.cpu._is_vnni_supported()
        pays = length >= _LONG * keep and length * _LEVELS**2 < 2**31  # and the sums fit 32 bits
        self.rounded = fast and pays and largest**2 < _PEAK**2 * mean_square
        if self.rounded:
            self.gram = _rounded_gram(w, largest)
        else:
            self.gram = self.w @ self.w.T if self.wide else self.w.T @ self.w

    def right(self, x: Array) -> Array:
        """The product X Wᵀ for rows X of shape (m, n)."""
        self.check()
        w = self.exact if x.dtype == np.float64 else self.w
        return _times_transposed(w, x) if self.wide else _times(w, x)

    def left(self, y: Array) -> Array:
        """The product Y W, of shape (m, n), for rows Y of the other length."""
        self.check()
        w = self.exact if y.dtype == np.float64 else self.w
        return _times(w, y) if self.wide else _times_transposed(w, y)

    def near(self, x: Array) -> Array:
        """The product X WᵀW as `both` gives it, but in float32 by the matrix WᵀW if there is one."""
        if self.gram is None or x.dtype == np.float64:
            return self.both(x)
        self.check()
        return _times(self.gram, x)

    def both(self, x: Array) -> Array:
        """The product X WᵀW for rows X of shape (m, n), in the dtype of X.

        It takes one pass over W, or two if W is wide and there is no copy of Wᵀ.
        """
        self.check()
        if self.wide and self.gram is not None:
            return self.left(self.right(x))
        product = np.zeros_like(x)
        for _, rows in _slices(self.tall, x):
            product += (x @ rows.T) @ rows
        return product


def _step(w: Array, vectors: Array) -> int:
    """How many rows of W one matrix product takes."""
    columns: int = w.shape[1]
    return max(16, _CALL // (len(vectors) * columns))


def _slices(w: Array, vectors: Array) -> Iterator[tuple[slice, Array]]:
    """Rows of W a few at a time, in the dtype of `vectors`, so that products with both sides find them in cache."""
    step = _step(w, vectors)
    same = w.dtype == vectors.dtype
    for start in range(0, len(w), step):
        part = slice(start, start + step)
        yield part, w[part] if same else w[part].astype(vectors.dtype)


def _times(w: Array, x: Array) -> Array:
    """The product X Wᵀ for rows X of shape (m, columns of W), in the dtype of X; its shape is (m, rows of W)."""
    product = np.empty((len(x), len(w)), x.dtype)
    if w.dtype == x.dtype:  # all in one call, so that threads do not wait for Python between its products
        step = _step(w, x)
        whole = len(w) - len(w) % step
        blocks = w[:whole].reshape(-1, step, w.shape[1]).swapaxes(1, 2)
        product[:, :whole] = (x @ blocks).swapaxes(0, 1).reshape(len(x), whole)
        product[:, whole:] = x @ w[whole:].T
        return product
    for part, rows in _slices(w, x):
        product[:, part] = x @ rows.T
    return product


def _times_transposed(w: Array, y: Array) -> Array:
    """The product Y W for rows Y of shape (m, rows of W), in the dtype of Y; its shape is (m, columns of W)."""
    product = np.zeros((len(y), w.shape[1]), y.dtype)
    for part, rows in _slices(w, y):
        product += y[:, part] @ rows
    return product
