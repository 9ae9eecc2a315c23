"""The environment a run was made in: sources it depends on, library versions, device kind, dtype."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from capacity.config import Frozen, canonical_json

LIBRARIES = ("torch", "transformers", "trl", "peft", "tokenizers", "numpy", "reasoning-gym")
_SOURCE_FOLDERS = ("adapters", "models", "rollouts", "tasks", "training")
# What decides which rate is tried, or how the embedded model once was made, changes the spec, not the run.
_NOT_SOURCES = ("training/rates.json", "training/rates.py", "models/pretrain.py")


class Fingerprint(Frozen):
    """Two runs may stand in one table if their specs differ as planned and their fingerprints not at all."""

    sources: str
    versions: dict[str, str]
    device: str
    dtype: str

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, first 16 hex digits."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()[:16]

    def difference(self, other: "Fingerprint") -> str:
        """What differs, in words: "torch 2.12.0 → 2.13.0, sources"."""
        parts = [
            f"{name} {self.versions.get(name, 'none')} → {other.versions.get(name, 'none')}"
            for name in sorted({*self.versions, *other.versions})
            if self.versions.get(name) != other.versions.get(name)
        ]
        parts += [name for name in ("sources", "device", "dtype") if getattr(self, name) != getattr(other, name)]
        return ", ".join(parts) or "nothing"


@cache
def source_digest() -> str:
    """SHA-256 over names and contents of everything a run depends on in this package, model weights included."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    paths = [package / "config.py", *(p for f in _SOURCE_FOLDERS for p in (package / f).rglob("*"))]
    for path in sorted(paths):
        name = path.relative_to(package).as_posix()
        if path.is_dir() or "__pycache__" in name or ".partial" in name or name in _NOT_SOURCES:
            continue
        content = path.read_bytes()
        digest.update(f"{name}|{len(content)}|".encode())
        digest.update(content)
    return digest.hexdigest()


def current(device: str, dtype: str) -> Fingerprint:
    """The fingerprint of runs made here and now on `device` ("cpu", "cuda") with base weights in `dtype`."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return Fingerprint(sources=source_digest(), versions=versions, device=device, dtype=dtype)
