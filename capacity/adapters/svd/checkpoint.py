"""Reads weights and their SVD factors straight from a local safetensors checkpoint, a few tensors at a time."""

import hashlib
import json
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from threadpoolctl import ThreadpoolController, threadpool_limits

from capacity.adapters.svd.cache import read_factors, write_factors
from capacity.adapters.svd.content_hash import content_hash
from capacity.adapters.svd.factors import Factors, truncated_svd
from capacity.errors import CapacityError, DataError
from capacity.plan.model_shapes import ModuleShape
from capacity.runs.files import write_atomically

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEADER_LIMIT = 10**8  # bytes, that of the format
_SAVE_SECONDS = 1.0
_SAMPLE = 4096  # bytes of each tensor that take part in the identity of a file
_SCHEME = "digests-3"
_BESIDE = 2**29  # bytes that factoring takes beside those of a layer's weights: with the libraries it stays below 1 GB


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is, its shape as stored, and its size in bytes."""

    name: str
    file: Path
    shape: tuple[int, ...]
    size: int


class WeightFolder:
    """The checkpoint in a local model folder: `model.safetensors`, or shards and their index.

    Opening it reads only the headers. They show whether a file is missing or cut off.

    Attributes:
        folder: the folder.
        tensors: all tensors by their name in the checkpoint.

    Raises:
        DataError: no checkpoint, a missing shard, or a file that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        identity = hashlib.sha256(_SCHEME.encode())
        for file in _checkpoint_files(folder):
            stored, sample = _header(file)
            status = file.stat()
            times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
            identity.update(f"|{file.name}|{status.st_size}|{times}|{sample}".encode())
            self.tensors.update((tensor.name, tensor) for tensor in stored)
        self._identity = identity.hexdigest()

    def read(self, name: str) -> torch.Tensor:
        """A tensor as stored. Its memory is the file's and goes with it.

        Raises:
            DataError: no such tensor, or it cannot be read.
        """
        stored = self.tensors.get(name)
        if stored is None:
            raise DataError(f"{self.folder}: no tensor {name} in the checkpoint")
        try:
            with safe_open(stored.file, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise _damaged(stored.file, f"{name} cannot be read ({error})") from None
        return tensor

    def find(self, shape: ModuleShape) -> StoredTensor:
        """The tensor that holds a module's weight; the checkpoint may lack the model's base prefix, or have one more.

        Raises:
            DataError: no such tensor, or one of another shape.
        """
        wanted = f"{shape.name}.weight"
        stored = self.tensors.get(wanted) or self.tensors.get(wanted.partition(".")[2])
        if stored is None:
            stored = next((t for name, t in self.tensors.items() if name.partition(".")[2] == wanted), None)
        if stored is None:
            raise DataError(f"{self.folder}: no tensor {wanted} in the checkpoint: is it one of this model?")
        if stored.shape not in ((shape.d, shape.k), (shape.k, shape.d)):
            found = "×".join(map(str, stored.shape))
            raise DataError(
                f"{stored.file}: {stored.name} has the shape {found} where the model has {shape.d}×{shape.k}: "
                "give an unquantised checkpoint of this model"
            )
        return stored

    def matrix(self, shape: ModuleShape, transposed: bool) -> torch.Tensor:
        """The weight W of a module, of shape (d, k). `transposed` means what it means in `stream_factors`.

        Raises:
            DataError: no such tensor, one of another shape or of integers, or it cannot be read.
        """
        stored = self.find(shape)
        weight = self.read(stored.name)
        if not weight.is_floating_point():
            raise DataError(f"{stored.file}: {stored.name} holds {weight.dtype}: give an unquantised checkpoint")
        return weight.T if _is_transposed(stored, shape, transposed) else weight

    def digests(self, cache: Path | None, on_tensor: Callable[[int, int, str], None] | None = None) -> dict[str, str]:
        """The content hash of every stored tensor, by its name.

        Args:
            cache: folder whose subfolder `digests` remembers them for the files as they are now; None for none.
            on_tensor: called with how many are done, how many there are, and the name.
        """
        found = {}
        with _Digests(cache, self._identity) as known:
            for done, name in enumerate(self.tensors, start=1):
                found[name] = known.get(name) or known.put(name, content_hash(self.read(name)))
                if on_tensor is not None:
                    on_tensor(done, len(self.tensors), name)
        return found

    def stream_factors(
        self,
        modules: Sequence[ModuleShape],
        rank: int,
        cache: Path | None,
        transposed: Collection[str] = (),
        threads: int | None = None,
    ) -> Generator[tuple[str, Factors, bool]]:
        """Gives module after module: its name, its factors, and whether they were computed now rather than cached.

        Several modules are worked on at once, each on one thread, which is faster than several threads for each. The
        factors are the same to the last bit on any number of threads. Until this generator ends, numpy's and scipy's
        BLAS has one thread in the whole process.

        A weight is read only if its hash or its factors are not cached yet. What was done stays cached when this is
        interrupted. Closing the generator (`contextlib.closing`) stops the work as soon as the matrix products under
        way are done.

        Args:
            modules: what to factor.
            rank: number of singular triplets r.
            cache: folder of cached factors and hashes, None for none.
            transposed: modules whose tensor is stored as Wᵀ, as GPT-2's Conv1D does. Needed for square ones only:
                the others show it by their shape.
            threads: the most modules at once; None for as many as torch has threads. Fewer are taken if they would need
                more than 512 MB beside the size of one layer.

        Raises:
            DataError: a tensor that is missing, of another shape, of integers, or cannot be read.
            CapacityError: a rank that is too large, or weights that are not finite.
        """
        stored = [self.find(shape) for shape in modules]
        works = [_Work(m, t, _is_transposed(t, m, m.name in transposed)) for m, t in zip(modules, stored, strict=True)]
        room, stopped = _Room(_BESIDE + _largest_layer(works)), threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise CancelledError

        def factor(work: _Work, digest: str | None) -> tuple[str, Factors, bool]:
            if digest is not None and (found := read_factors(cache, digest, rank)) is not None:
                return digest, found, False
            with room.take(work.memory):
                check()
                return self._factor(work, digest, rank, cache, check)

        workers = torch.get_num_threads() if threads is None else threads
        with (
            _Digests(cache, self._identity) as known,
            threadpool_limits(limits=1, user_api="blas"),
            ThreadPoolExecutor(workers, initializer=_one_torch_thread) as pool,
        ):
            results = pool.map(factor, works, [known.get(work.key) for work in works])
            try:
                for work, (digest, factors, computed) in zip(works, results, strict=True):
                    known.put(work.key, digest)
                    factors.warn_if_close(work.shape.name)
                    yield work.shape.name, factors, computed
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)

    def _factor(
        self, work: "_Work", digest: str | None, rank: int, cache: Path | None, check: Callable[[], None]
    ) -> tuple[str, Factors, bool]:
        """The content hash of a module's weight, its factors, and whether they were computed. Safe in any thread."""
        weight = self.matrix(work.shape, work.transposed)
        digest = digest or content_hash(weight)
        factors = read_factors(cache, digest, rank)
        if factors is not None:
            return digest, factors, False
        factors = truncated_svd(weight, rank, digest, work.shape.name, check)
        write_factors(cache, digest, factors)
        return digest, factors, True


@dataclass(frozen=True)
class _Work:
    """A module to factor, and its tensor. `transposed` says that the tensor is stored as Wᵀ."""

    shape: ModuleShape
    stored: StoredTensor
    transposed: bool

    @property
    def key(self) -> str:
        """The name under which the content hash of the weight is kept."""
        return f"{self.stored.name}ᵀ" if self.transposed else self.stored.name

    @property
    def memory(self) -> int:
        """Bytes of the tensor, of its copy in float32 or row after row, and of the transpose of a wide matrix."""
        entries = self.shape.d * self.shape.k
        narrow = self.stored.size < 4 * entries
        plain = max(self.stored.size, 4 * entries)
        return self.stored.size + plain * ((narrow or self.transposed) + (self.shape.d < self.shape.k))


def _largest_layer(works: Iterable[_Work]) -> int:
    """Bytes of the weights of the largest layer as stored; modules of a layer agree in the first number of the name."""
    sizes: Counter[str] = Counter()
    for work in works:
        sizes[re.split(r"(?<=\d)\D", work.shape.name, maxsplit=1)[0]] += work.stored.size
    return max(sizes.values(), default=0)


class _Room:
    """Memory that several threads share: each waits until what it takes is free, but one alone may take any amount."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + amount <= self.limit)
            self.taken += amount
        try:
            yield
        finally:
            with self.changed:
                self.taken -= amount
                self.changed.notify_all()


def _one_torch_thread() -> None:
    """Ends the use of further threads by torch in the thread that calls this, and in no other."""
    torch.get_num_threads()  # at its first use in a thread torch sets the number that holds there, so before ours
    ThreadpoolController().limit(limits=1, user_api="openmp")


def folder_factors(
    folder: Path | WeightFolder,
    modules: Sequence[ModuleShape],
    rank: int,
    cache: Path | None,
    on_module: Callable[[int, int, str], None] | None = None,
    transposed: Collection[str] = (),
    threads: int | None = None,
) -> dict[str, Factors]:
    """The factors of all `modules` by name; see `WeightFolder.stream_factors`.

    Args:
        folder: a local model folder, or one opened before.
        modules: what to factor.
        rank: number of singular triplets r.
        cache: folder of cached factors and hashes, None for none.
        on_module: called with how many are done, how many there are, and the name.
        transposed: modules whose tensor is stored as Wᵀ.
        threads: the most modules at once; None for as many as torch has threads.
    """
    opened = folder if isinstance(folder, WeightFolder) else WeightFolder(folder)
    factors = {}
    with closing(opened.stream_factors(modules, rank, cache, transposed, threads)) as stream:
        for name, found, _ in stream:
            factors[name] = found
            if on_module is not None:
                on_module(len(factors), len(modules), name)
    return factors


def _is_transposed(stored: StoredTensor, shape: ModuleShape, told: bool) -> bool:
    return told if shape.d == shape.k else stored.shape != (shape.d, shape.k)


class _Digests:
    """The content hashes of one checkpoint, kept in a file that is named after the identity of the checkpoint's files.

    It is a context manager, which saves the file at its end.
    """

    def __init__(self, cache: Path | None, identity: str) -> None:
        self.path = cache / "digests" / f"{identity}.json" if cache is not None else None
        self.known: dict[str, str] = {}
        self.unsaved = False
        self.saved = time.monotonic()
        if self.path is not None:
            self.known = _read_digests(self.path)

    def __enter__(self) -> "_Digests":
        return self

    def __exit__(self, *_: object) -> None:
        self._save()

    def get(self, key: str) -> str | None:
        return self.known.get(key)

    def put(self, key: str, digest: str) -> str:
        self.unsaved |= self.known.get(key) != digest
        self.known[key] = digest
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self._save()
        return digest

    def _save(self) -> None:
        if self.path is None or not self.unsaved:
            return
        text = json.dumps(self.known, indent=0, sort_keys=True)
        check = hashlib.sha256(text.encode()).hexdigest()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, f"{check}\n{text}\n")
        except (OSError, DataError) as error:
            warnings.warn(f"{self.path.parent} cannot be written: {error}", RuntimeWarning, stacklevel=4)
        self.unsaved, self.saved = False, time.monotonic()


def _read_digests(path: Path) -> dict[str, str]:
    """The stored hashes; none if there is no file or it is damaged, since they can be computed again."""
    try:
        check, _, text = path.read_text(encoding="utf-8").partition("\n")
        if check != hashlib.sha256(text.removesuffix("\n").encode()).hexdigest():
            return {}
        known: dict[str, str] = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return known


def _checkpoint_files(folder: Path) -> Iterable[Path]:
    """The files that make up the checkpoint in a folder, in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    index = folder / INDEX
    if (folder / SINGLE).exists():  # where there are both, transformers too reads this one
        return [folder / SINGLE]
    if not index.exists():
        raise DataError(f"{folder}: neither {SINGLE} nor {INDEX}: give the folder of a model in safetensors format")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise _damaged(index, "not an index of shards") from None
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing, the first is {missing[0]}: "
            "complete the download"
        )
    return [folder / name for name in names]


def _header(file: Path) -> tuple[list[StoredTensor], str]:
    """The tensors of a safetensors file, and a SHA-256 over its header and the first bytes of each tensor.

    The sample tells fine-tunes of one model apart, whose files may agree in everything else, times included.
    The format: 8 bytes length (little-endian), JSON, then the bytes of the tensors up to the end of the file.
    """
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            raw = handle.read(length) if length <= _HEADER_LIMIT else b""
            header: dict[str, Any] = json.loads(raw)
            header.pop("__metadata__", None)
            offsets = [entry["data_offsets"] for entry in header.values()]
            tensors = [
                StoredTensor(name, file, tuple(entry["shape"]), stop - start)
                for (name, entry), (start, stop) in zip(header.items(), offsets, strict=True)
            ]
            end = 8 + length + max((stop for _, stop in offsets), default=0)
            sample = hashlib.sha256(raw)
            for start, stop in sorted(offsets):
                handle.seek(8 + length + start)
                sample.update(handle.read(min(_SAMPLE, stop - start)))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        raise _damaged(file, "not a safetensors file") from None
    size = file.stat().st_size
    if size != end:
        raise _damaged(file, f"{size:,} bytes where its header tells of {end:,}")
    return tensors, sample.hexdigest()


def _damaged(file: Path, what: str) -> CapacityError:
    return DataError(f"{file}: {what}: download it again")
