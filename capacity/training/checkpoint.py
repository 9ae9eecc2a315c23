"""A checkpoint: all that a run in training needs to go on later, to the same bytes, in one small file.

Frozen weights and factors are not in it. They are rebuilt from the spec, as at the start of every run.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from capacity.adapters.files.artifact import read_metadata
from capacity.errors import DataError
from capacity.runs import files
from capacity.spec.frozen import Frozen
from capacity.spec.result import Step

_FORMAT = b"capacity checkpoint 1 "
_ENTRY = "checkpoint"  # of the metadata of the safetensors file that follows
_HEADER = len(_FORMAT) + 65  # with the 64 hex digits of a SHA-256 and the end of the line


class Position(Frozen):
    """Where a run in training stands.

    Attributes:
        phase: the number of its present arm, counted from 0.
        step: the number of steps that this arm has made.
        gradient_steps: the number of those whose gradient was not exactly zero.
        first_step: the number of steps that earlier arms have made.
        streams: the state of each random generator of the arm, by its name.
        steps: the metrics of all steps so far.
        cost: what the run has used so far, by the names of the costs in `Result`.
    """

    phase: int
    step: int
    gradient_steps: int
    first_step: int
    streams: dict[str, Any]
    steps: tuple[Step, ...]
    cost: dict[str, int]


@dataclass(frozen=True)
class TrainingState:
    """The position of a run and its tensors: what is trained, and what the optimiser remembers of it."""

    position: Position
    tensors: Mapping[str, Tensor]


class Origin(Frozen):
    """What a checkpoint belongs to. A run continues from it only if all three are its own.

    Attributes:
        run: the identity of the spec.
        environment: the digest of the fingerprint.
        base: the SHA-256 over the untrained weights.
    """

    run: str
    environment: str
    base: str


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run in training, what it belongs to, and how long the run had taken until then, in seconds."""

    origin: Origin
    seconds: float
    state: TrainingState


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces a checkpoint by a later one. A reader sees either of them, never a part.

    Raises:
        DataError: if the file cannot be written.
    """
    said = {
        "origin": checkpoint.origin.model_dump(mode="json"),
        "seconds": checkpoint.seconds,
        "position": checkpoint.state.position.model_dump(mode="json"),
    }
    content = save(dict(checkpoint.state.tensors), {_ENTRY: json.dumps(said, allow_nan=False)})
    digest = hashlib.sha256(content).hexdigest().encode()
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    files.write_atomically(path, _FORMAT + digest + b"\n" + content)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint, after it has checked the checksum.

    Raises:
        DataError: if the file is unreadable or broken.
    """
    files.check_regular(path)
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    header, content = whole[:_HEADER], whole[_HEADER:]
    if header != _FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise DataError(f"{path}: broken, or of another version")
    try:
        said, tensors = read_metadata(content, _ENTRY), load(content)
        state = TrainingState(Position.model_validate(said["position"]), tensors)
        return Checkpoint(Origin.model_validate(said["origin"]), float(said["seconds"]), state)
    except (SafetensorError, ValidationError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: broken: {type(error).__name__}") from None
