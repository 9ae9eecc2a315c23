"""The digest of the files that a model is loaded from. It tells whether the base of a run has changed. No torch.

It is read without loading the model, so that a study can be checked before anything is trained. Weights count, and so
do the config, the tokenizer and the chat template.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from importlib.resources import files as package_files
from pathlib import Path

from capacity.cache import cache_folder
from capacity.errors import CapacityError
from capacity.plan.hub_config import hub_library
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES, resolve
from capacity.runs.files import sha256_file, write_atomically

# What a model folder holds beside these does not change what is loaded.
_LOADED = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*", "*.model", "*.tiktoken", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template*",
)  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_REMEMBERED = 2**24  # bytes; the digests of larger files are kept


def base_digests(models: Iterable[str]) -> dict[str, str | None]:
    """Returns `base_digest` of each model, by its name."""
    return {model: base_digest(model) for model in dict.fromkeys(models)}


def base_digest(model: str) -> str | None:
    """Returns the SHA-256 over the names and contents of the files that a model would be loaded from now, in hex.

    Returns None if the weights are not on this machine. Nothing is downloaded.
    """
    found = _files(model)
    if not found:
        return None
    digest = hashlib.sha256()
    for path in found:
        digest.update(f"{path.name}|{content_digest(path)}|".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits.

    That of a large file is remembered for the file as it is: its place, size and times. The time of its last change
    cannot be set by hand.
    """
    status = path.stat()
    if status.st_size < _REMEMBERED:
        return sha256_file(path)
    identity = f"{path.resolve()}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"
    kept = cache_folder("bases") / hashlib.sha256(os.fsencode(identity)).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        digest = kept.read_text(encoding="ascii")
        if len(digest) == 64:
            return digest
    digest = sha256_file(path)
    with contextlib.suppress(OSError, CapacityError):  # a cache that cannot be written costs time and nothing else
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, digest)
    return digest


def _files(model: str) -> list[Path]:
    """The files that a model is loaded from, by their names; none if they are not on this machine."""
    parsed = parse_model(model)
    if parsed.is_gguf:
        return [Path(parsed.base)] if Path(parsed.base).is_file() else []
    folder = _folder(model)
    if folder is None:
        return []
    found = sorted({path for pattern in _LOADED for path in folder.glob(pattern) if path.is_file()})
    # The config of a hub model may be here alone: planning fetches it.
    return found if any(path.suffix in _WEIGHTS for path in found) else []


def _folder(model: str) -> Path | None:
    """The folder of a model as it is on this machine; None if it is not there."""
    try:
        parsed = parse_model(resolve(model))
        alias = ALIASES.get(parsed.base)
        if alias is None and Path(parsed.base).is_dir():
            return Path(parsed.base)
        if alias is not None and alias.source == "embedded":
            return Path(str(package_files("capacity.models"))) / "data" / parsed.base
        if parsed.base == "smollm2-135m":
            from capacity.models.smollm2 import gguf_file

            return gguf_file().parent
        hub = hub_library()
        repository = parsed.base if alias is None else alias.source
        try:
            return Path(hub.snapshot_download(repository, revision=parsed.revision, local_files_only=True))
        except hub.errors.LocalEntryNotFoundError:
            return None
    except CapacityError:
        return None
