"""The fingerprint of a run records the sources, library versions, device kind, dtype and trainer that made it."""

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from capacity.errors import unknown
from capacity.spec.frozen import Frozen, canonical_json

# What makes the steps of a run: the loop of this package, or the trainers of TRL, which are its oracle.
Trainer = Literal["loop", "trl"]
LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy", "reasoning-gym")  # TRL joins them as trainer
_PACKAGE = Path(__file__).parent.parent
# Where a run starts: in the worker's process, and in the process that compares answers.
_ENTRIES = ("capacity.training.run", "capacity.tasks.grading.verifier_worker")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Fingerprint(Frozen):
    """A fingerprint describes the environment of a run. Runs may stand in one table only if theirs are equal.

    A fingerprint that names no trainer is of a run that TRL's trainers made. All runs were, before there was a choice.
    """

    sources: str
    versions: dict[str, str]
    device: str
    dtype: str
    trainer: Trainer = "trl"

    @model_serializer(mode="wrap")
    def _as_before_the_choice(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.trainer == "trl":
            fields.pop("trainer")
        return fields

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the canonical JSON, first 16 hex digits."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()[:16]

    def difference(self, other: "Fingerprint") -> str:
        """Describes in words what differs, such as "torch 2.12.0 → 2.13.0, sources"."""
        other_trainer = self.trainer != other.trainer
        parts = [
            f"{name} {self.versions.get(name, 'none')} → {other.versions.get(name, 'none')}"
            for name in sorted({*self.versions, *other.versions} - ({"trl"} if other_trainer else set()))
            if self.versions.get(name) != other.versions.get(name)
        ]
        parts += [name for name in ("sources", "device", "dtype") if getattr(self, name) != getattr(other, name)]
        parts += [f"trainer {self.trainer} → {other.trainer}"] if other_trainer else []
        return ", ".join(parts) or "nothing"


@cache
def source_digest() -> str:
    """Returns a SHA-256 over the code of this package that a run reaches by imports, and over the shipped models.

    Code counts by its syntax trees without docstrings, comments and layout. So a change of prose never makes runs
    stale.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(reached(_ENTRIES).items()):
        digest.update(f"{name}|{syntax(tree)}|".encode())
    for path in sorted((_PACKAGE / "models" / "data").rglob("*")):
        if path.is_file() and ".partial" not in path.name:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_PACKAGE).as_posix()}|{len(content)}|".encode())
            digest.update(content)
    return digest.hexdigest()


def reached(entries: Sequence[str]) -> dict[str, ast.Module]:
    """Returns the modules of this package that `entries` import, directly or not, with their syntax trees.

    Imports inside functions count too.
    """
    found: dict[str, ast.Module] = {}
    open_names = list(entries)
    while open_names:
        name = open_names.pop()
        path = _PACKAGE.parent / f"{name.replace('.', '/')}.py"
        if name not in found and path.is_file():
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
            open_names += _imported(found[name])
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yields names that may be modules of this package. Imports for type checkers alone do not count."""
    open_nodes: list[ast.AST] = [tree]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("capacity."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "capacity":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        open_nodes += ast.iter_child_nodes(node)


def syntax(node: Any) -> str:
    """Returns a syntax tree as text, without docstrings and positions.

    Fields that are absent or empty are left out, because newer versions of Python add such fields.
    """
    if isinstance(node, list):
        return f"[{','.join(map(syntax, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    told = (f"{name}={syntax(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({','.join(told)})"


def current(device: str, dtype: str, trainer: Trainer = "loop") -> Fingerprint:
    """Returns the fingerprint of runs that this process makes. It names the version of TRL only if TRL trains.

    Args:
        device: "cpu" or "cuda".
        dtype: the dtype of the base weights.
        trainer: what makes the steps.
    """
    versions = {}
    for name in (*LIBRARIES, "trl") if trainer == "trl" else LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return Fingerprint(sources=source_digest(), versions=versions, device=device, dtype=dtype, trainer=trainer)


def parse_trainer(text: str) -> Trainer:
    """Reads what makes the steps of runs.

    Raises:
        SpecError: if there is no such trainer.
    """
    if text not in get_args(Trainer):
        raise unknown("trainer", text, get_args(Trainer))
    return cast(Trainer, text)
