"""Items are kept beside the runs of a study, so that whoever reads its completions sees prompts and answers too.

    STUDY/items/<digest>.jsonl     one line per item, in the order of the evaluation

Runs record the digest of their items. One file serves all runs that were asked the same items, and its name says what
is in it. A study without such files is complete: they are for readers, and no number depends on them.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capacity.errors import DataError
from capacity.runs import files
from capacity.spec.frozen import canonical_json
from capacity.spec.result import Recorded

FOLDER = "items"


class ItemText(Recorded):
    """An item as it was asked.

    Attributes:
        id: its name.
        prompt: the prompt as text. It is used if `messages` is empty.
        answer: the reference answer.
        messages: the prompt as (role, content) pairs for the model's own chat format.
    """

    id: str
    prompt: str
    answer: str
    messages: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> str:
        """Returns the prompt as a person reads it."""
        return self.prompt if not self.messages else "\n".join(content for _, content in self.messages)


def digest_of(items: Sequence[ItemText]) -> str:
    """Returns the SHA-256 over names and contents of items in their order, as runs record it; 16 hex digits."""
    return hashlib.sha256(canonical_json([_plain(item) for item in items]).encode()).hexdigest()[:16]


def items_path(study: Path, digest: str) -> Path:
    """Returns the file of the items with this digest in a study. It need not exist."""
    return study / FOLDER / f"{digest}.jsonl"


def write_items(study: Path, items: Sequence[ItemText]) -> Path:
    """Keeps items in a study, and returns their file. A file that is there already stays as it is.

    A reader sees either the whole file or none.

    Args:
        study: the study folder.
        items: the items of an evaluation, in its order.

    Raises:
        OSError: if the file cannot be written. Nothing is left of it.
    """
    path = items_path(study, digest_of(items))
    if path.is_file():
        return path
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            for item in items:
                handle.write(json.dumps(_plain(item), separators=(",", ":")) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_items(study: Path, digest: str) -> dict[str, ItemText]:
    """Returns the items of this digest by their names. The result is empty if the study does not have them.

    Raises:
        DataError: if the file is unreadable, or has other items than its name says.
    """
    path = items_path(study, digest)
    if not digest or not path.exists():
        return {}
    items = files.read_records(path, ItemText)
    if digest_of(items) != digest:
        raise DataError(f"{path}: its items are not those that its name says: remove it")
    return {item.id: item for item in items}


def _plain(item: ItemText) -> dict[str, Any]:
    return {"id": item.id, "prompt": item.prompt, "answer": item.answer, "messages": item.messages}
