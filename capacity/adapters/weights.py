"""Weights and their SVD factors straight from a local safetensors checkpoint, one tensor in memory at a time."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from capacity.adapters.budget import ModuleShape
from capacity.adapters.factors import Factors, content_hash, read_factors, truncated_svd, write_factors
from capacity.errors import CapacityError, DataError
from capacity.runs.files import write_atomically

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEADER_LIMIT = 10**8  # bytes, that of the format
_SAVE_SECONDS = 1.0
_SAMPLE = 4096  # bytes of each tensor that take part in the identity of a file
_SCHEME = "digests-2"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is, and its shape as stored."""

    name: str
    file: Path
    shape: tuple[int, ...]


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
            shapes, sample = _header(file)
            status = file.stat()
            identity.update(f"|{file.name}|{status.st_size}|{status.st_mtime_ns}|{sample}".encode())
            for name, shape in shapes.items():
                self.tensors[name] = StoredTensor(name, file, shape)
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
        """W of a module, shape (d, k). `transposed` as in `stream_factors`.

        Raises:
            DataError: no such tensor, one of another shape or of integers, or it cannot be read.
        """
        stored = self.find(shape)
        weight = self.read(stored.name)
        if not weight.is_floating_point():
            raise DataError(f"{stored.file}: {stored.name} holds {weight.dtype}: give an unquantised checkpoint")
        return weight.T if _is_transposed(stored, shape, transposed) else weight

    def digests(self, cache: Path | None, on_tensor: Callable[[int, int, str], None] | None = None) -> dict[str, str]:
        """The content hash of every tensor by name, as stored.

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
        self, modules: Sequence[ModuleShape], rank: int, cache: Path | None, transposed: Collection[str] = ()
    ) -> Iterator[tuple[str, Factors, bool]]:
        """Module after module: its name, its factors, and whether they were computed now rather than cached.

        A weight is read only if its hash or its factors are not cached yet. What was done stays cached when this is
        interrupted.

        Args:
            modules: what to factor.
            rank: r.
            cache: folder of cached factors and hashes, None for none.
            transposed: modules whose tensor is stored as Wᵀ, as GPT-2's Conv1D does. Needed for square ones only:
                the others show it by their shape.

        Raises:
            DataError: a tensor that is missing, of another shape, of integers, or cannot be read.
            CapacityError: a rank that is too large, or weights that are not finite.
        """
        with _Digests(cache, self._identity) as known:
            for shape in modules:
                stored = self.find(shape)
                turned = _is_transposed(stored, shape, shape.name in transposed)
                key = f"{stored.name}ᵀ" if turned else stored.name
                digest = known.get(key)
                factors = read_factors(cache, digest, rank) if digest is not None else None
                computed = False
                if factors is None:
                    weight = self.matrix(shape, turned)
                    digest = digest or known.put(key, content_hash(weight))
                    factors = read_factors(cache, digest, rank)
                    if factors is None:
                        factors = truncated_svd(weight, rank, digest, shape.name)
                        write_factors(cache, digest, factors)
                        computed = True
                factors.warn_if_close(shape.name)
                yield shape.name, factors, computed


def folder_factors(
    folder: Path | WeightFolder,
    modules: Sequence[ModuleShape],
    rank: int,
    cache: Path | None,
    on_module: Callable[[int, int, str], None] | None = None,
    transposed: Collection[str] = (),
) -> dict[str, Factors]:
    """The factors of all `modules` by name; see `WeightFolder.stream_factors`.

    Args:
        folder: a local model folder, or one opened before.
        modules: what to factor.
        rank: r.
        cache: folder of cached factors and hashes, None for none.
        on_module: called with how many are done, how many there are, and the name.
        transposed: modules whose tensor is stored as Wᵀ.
    """
    opened = folder if isinstance(folder, WeightFolder) else WeightFolder(folder)
    factors = {}
    for name, found, _ in opened.stream_factors(modules, rank, cache, transposed):
        factors[name] = found
        if on_module is not None:
            on_module(len(factors), len(modules), name)
    return factors


def _is_transposed(stored: StoredTensor, shape: ModuleShape, told: bool) -> bool:
    return told if shape.d == shape.k else stored.shape != (shape.d, shape.k)


class _Digests:
    """Context manager: content hashes of one checkpoint, kept in a file that is named after the files' identity."""

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
        self.known[key] = digest
        self.unsaved = True
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
        check, _, text = path.read_text().partition("\n")
        if check != hashlib.sha256(text.removesuffix("\n").encode()).hexdigest():
            return {}
        known: dict[str, str] = json.loads(text)
    except (OSError, ValueError):
        return {}
    return known


def _checkpoint_files(folder: Path) -> Iterable[Path]:
    """The files that make up the checkpoint, in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    index = folder / INDEX
    if (folder / SINGLE).exists():  # where there are both, transformers too reads this one
        return [folder / SINGLE]
    if not index.exists():
        raise DataError(f"{folder}: neither {SINGLE} nor {INDEX}: give the folder of a model in safetensors format")
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(index, "not an index of shards") from None
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing, the first is {missing[0]}: "
            "complete the download"
        )
    return [folder / name for name in names]


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], str]:
    """The shapes of a safetensors file by tensor, and a SHA-256 over its header and the first bytes of each tensor.

    The sample tells fine-tunes of one model apart, whose files may agree in everything else, times included.
    The format: 8 bytes length (little-endian), JSON, then the bytes of the tensors up to the end of the file.
    """
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            raw = handle.read(length) if length <= _HEADER_LIMIT else b""
            header: dict[str, Any] = json.loads(raw)
            header.pop("__metadata__", None)
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
            offsets = [entry["data_offsets"] for entry in header.values()]
            end = 8 + length + max((stop for _, stop in offsets), default=0)
            sample = hashlib.sha256(raw)
            for start, stop in sorted(offsets):
                handle.seek(8 + length + start)
                sample.update(handle.read(min(_SAMPLE, stop - start)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _damaged(file, "not a safetensors file") from None
    size = file.stat().st_size
    if size != end:
        raise _damaged(file, f"{size:,} bytes where its header tells of {end:,}")
    return shapes, sample.hexdigest()


def _damaged(file: Path, what: str) -> CapacityError:
    return DataError(f"{file}: {what}: download it again")
