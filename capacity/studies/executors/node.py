"""The life of a worker on a node of a cluster. It shares no files with the study, and imports no Ray."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from capacity.errors import CapacityError
from capacity.runs.fingerprint import Fingerprint, current
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.device import device
from capacity.studies.executors.checkpoint_bytes import checkpoints_of, keep_checkpoints
from capacity.studies.executors.parcel import packed
from capacity.studies.worker import JobMaker, checked, prepared

if TYPE_CHECKING:
    from capacity.training.base import Bases


class NodeWorker:
    """Makes runs on a node and gives them back as bytes.

    Args:
        fingerprint_json: the environment of the runs.
        share: the part of the GPU's memory that this process may take.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made.
    """

    def __init__(self, fingerprint_json: str, share: float, checkpoint_minutes: float = 0) -> None:
        self.fingerprint = Fingerprint.model_validate_json(fingerprint_json)
        self.share, self.checkpoint_minutes = share, checkpoint_minutes
        self.bases: Bases | None = None

    def prepare(self) -> None:
        """Loads the libraries, after a look at whether this node gives the runs that were asked for.

        Raises:
            CapacityError: if the environment of this node is another one.
        """
        here = current(device(), self.fingerprint.dtype, self.fingerprint.trainer)
        if here != self.fingerprint:
            raise CapacityError(
                f"node {platform.node()} has another environment ({self.fingerprint.difference(here)}): "
                "install the same versions, and this package, on every node"
            )
        self.bases = prepared(self.fingerprint, self.share)

    def check(self, job: Sequence[dict[str, Any]]) -> tuple[CapacityError | None, list[str]]:
        """Returns why a model cannot be asked the prompts of its runs on this node; see `checked`."""
        return checked([RunSpec.model_validate(raw) for raw in job])

    def make(
        self, job: Sequence[dict[str, Any]], checkpoints: Mapping[str, bytes]
    ) -> Iterator[tuple[str, str, int, str, Any]]:
        """Makes the runs of a job and yields what happens: (kind, identity, step, message, content).

        The first four are those of `capacity.studies.worker.work`. The content of a run that is done is its `Parcel`.
        That of a run that has failed is the traceback. One more kind is "checkpoint", whose content is the latest
        checkpoint of the run as bytes, or None if the run has been finished since.

        Args:
            job: the specs of the runs, as JSON.
            checkpoints: the checkpoints that runs continue from, by the identity of the run.
        """
        specs = {spec.identity: spec for spec in map(RunSpec.model_validate, job)}
        said: SimpleQueue[tuple[str, str, int, str] | None] = SimpleQueue()
        with TemporaryDirectory(prefix="capacity-") as place:
            study = Study(Path(place) / "study")
            with study.locked():
                keep_checkpoints(study, specs.values(), checkpoints)
                # The maker works in a thread, so that its steps can be told while it works.
                Thread(target=self._make, args=(list(specs.values()), study, said), daemon=True).start()
                while (event := said.get()) is not None:
                    yield (*event, _content(study, specs[event[1]], event[0]))

    def _make(self, specs: list[RunSpec], study: Study, said: "SimpleQueue[tuple[str, str, int, str] | None]") -> None:
        try:
            maker = JobMaker(_Outbox(said), study, self.fingerprint)
            if self.checkpoint_minutes:
                from capacity.studies.executors.sent_checkpoints import SentCheckpoints

                maker.checkpoints = SentCheckpoints(
                    study.folder,
                    self.fingerprint.digest,
                    self.checkpoint_minutes,
                    maker.note,
                    lambda spec: said.put(("checkpoint", spec.identity, 0, "")),
                )
            maker.make(specs, self.bases)
        finally:
            said.put(None)


class _Outbox:
    """What a job maker takes for the pipe to its parent."""

    def __init__(self, said: "SimpleQueue[tuple[str, str, int, str] | None]") -> None:
        self.send = said.put


def _content(study: Study, spec: RunSpec, kind: str) -> Any:
    if kind == "done":
        return packed(study, spec)
    if kind == "failed":
        return next((f.traceback for f in study.failures() if f.run == spec.short_id), "")
    if kind == "checkpoint":
        return checkpoints_of(study, [spec]).get(spec.identity)
    return None
