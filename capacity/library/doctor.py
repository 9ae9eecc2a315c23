"""What this machine has for making runs: versions, cores, memory, disks, devices, caches and engines."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.cache import cache_folder
from capacity.errors import CapacityError
from capacity.library.shown import Shown
from capacity.plan.machine import cores, free_bytes, memory_bytes, writable
from capacity.plan.memory import gigabytes
from capacity.runs.fingerprint import LIBRARIES
from capacity.sampling.vllm.engine import PACKAGES
from capacity.studies.device import check_libraries, device
from capacity.version import __version__

if TYPE_CHECKING:
    from capacity_reports.blocks import Block

_TOLD = (*LIBRARIES, "trl", "bitsandbytes", *PACKAGES)
_CACHES = ("factors", "models", "data", "bases", "checked", "finished")


@dataclass(frozen=True)
class Device:
    """A device that runs may use.

    Attributes:
        name: what it calls itself.
        memory_bytes: all of its memory.
        free_bytes: what no process holds; None for the CPU.
    """

    name: str
    memory_bytes: int
    free_bytes: int | None


@dataclass(frozen=True, repr=False)
class Machine(Shown):
    """What a machine has for making runs.

    Attributes:
        versions: of this package, of Python and of the libraries; None for one that is not installed.
        cores: those that this process may use.
        memory_bytes: of the machine, or of the container if that is less.
        devices: what runs would use: the GPUs, or the CPU if there is none.
        disk_bytes: the room on the disk of each folder that is written to.
        caches: the files of each cache in bytes.
        trainers: what can make the steps of runs.
        engines: what can sample.
        obstacles: what stands in the way of runs, a line each.
    """

    versions: dict[str, str | None]
    cores: int
    memory_bytes: int
    devices: tuple[Device, ...]
    disk_bytes: dict[str, int]
    caches: dict[str, int]
    trainers: tuple[str, ...]
    engines: tuple[str, ...]
    obstacles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        lists = {name: list(getattr(self, name)) for name in ("trainers", "engines", "obstacles")}
        return {**vars(self), **lists, "devices": [vars(device) for device in self.devices]}

    @property
    def line(self) -> str:
        """Whether runs can be made here, and on what."""
        names = ", ".join(found.name for found in self.devices)
        if self.obstacles:
            return f"{len(self.obstacles)} obstacle{'s' if len(self.obstacles) > 1 else ''} to runs on {names}"
        return f"Runs can be made here, on {names}"

    @property
    def blocks(self) -> "Sequence[Block]":
        """A table of all that is known, and the obstacles."""
        from capacity_reports.blocks import Column, Table, Text

        rows = [
            *((name, found or "not installed") for name, found in self.versions.items()),
            ("cores", f"{self.cores:,}"),
            ("memory", gigabytes(self.memory_bytes)),
            *((f"device {number}", _told(found)) for number, found in enumerate(self.devices)),
            *((f"room in {place}", gigabytes(room)) for place, room in self.disk_bytes.items()),
            *((f"cache {name}", gigabytes(size)) for name, size in self.caches.items()),
            ("trainers", ", ".join(self.trainers) or "none"),
            ("engines", ", ".join(self.engines) or "none"),
        ]
        table = Table("machine", "", (Column("what", "what"), Column("found", "found")), tuple(rows))
        said = [f"Obstacle: {obstacle}" for obstacle in self.obstacles]
        return [Text((f"{self.line}.",)), table, *([Text(tuple(said))] if said else [])]


def doctor(folder: str | Path = "capacity-studies") -> Machine:
    """Looks at this machine. Nothing is made, downloaded or loaded.

    Args:
        folder: where studies are to go.
    """
    places = {"studies": Path(folder), "cache": cache_folder("factors").parent}
    obstacles = [
        f"{path} cannot be written: change its permissions, or choose another folder for the {name}"
        for name, path in places.items()
        if not writable(path)
    ]
    trainers = []
    for trainer in ("loop", "trl"):
        try:
            check_libraries(trainer)
        except CapacityError as error:
            if trainer == "loop":
                obstacles.append(str(error))
        else:
            trainers.append(trainer)
    versions: dict[str, str | None] = {"capacity": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in _TOLD}
    vllm = [f"{name} {versions[name]}" for name in PACKAGES if versions[name] is not None]
    return Machine(
        versions=versions,
        cores=cores(),
        memory_bytes=memory_bytes(),
        devices=_devices(),
        disk_bytes={str(path): free_bytes(path) for path in places.values()},
        caches={name: _size(cache_folder(name)) for name in _CACHES},
        trainers=tuple(trainers),
        engines=(*(["transformers"] if find_spec("transformers") else []), *vllm),
        obstacles=tuple(obstacles),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> tuple[Device, ...]:
    """Returns the GPUs that torch sees; the CPU if there is none."""
    if device() == "cpu":
        return (Device(platform.processor() or platform.machine() or "cpu", memory_bytes(), None),)
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(number)
        found.append(Device(torch.cuda.get_device_name(number), whole, free))
    return tuple(found)


def _told(found: Device) -> str:
    free = "" if found.free_bytes is None else f", {gigabytes(found.free_bytes)} of it free"
    return f"{found.name}, {gigabytes(found.memory_bytes)}{free}"


def _size(folder: Path) -> int:
    """Returns the bytes of all files under a folder; 0 if there is none. Other processes may remove some meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += Path(place, name).lstat().st_size
    return found
