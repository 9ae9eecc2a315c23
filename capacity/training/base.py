"""The bases that runs start from. A worker loads each once; every run gets a model of its own on the same weights."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from capacity.adapters.attach import attach
from capacity.adapters.files.artifact import base_fingerprint
from capacity.adapters.kinds.whole import OwnWeightsModel
from capacity.adapters.lanes import shared_copy
from capacity.adapters.layout import EVEN, Layout
from capacity.adapters.model import AdaptedModel
from capacity.adapters.open import checkpoint_of
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.cache import cache_folder
from capacity.errors import TrainingError
from capacity.models.base_files import base_digest
from capacity.models.loading import load
from capacity.models.weights_digest import weights_digest
from capacity.plan.model_names import parse_model
from capacity.spec.adapters import Adapter
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task
from capacity.tasks.task import Task
from capacity.training.base_gradients import BaseGradients
from capacity.training.base_lengths import BaseLengths
from capacity.training.preflight import Lengths, check_run


@dataclass
class Base:
    """A loaded model without any update.

    Attributes:
        name: the name of the model.
        model: the bare model. Nothing changes it.
        tokenizer: its tokenizer.
        weights: the checkpoint that it was loaded from; None for a quantised model, whose factors are those of its
            dequantised weights.
        fingerprint: the SHA-256 over its weights.
        files: a digest of the files that it was loaded from; None if it has none of its own.
        cache: the folder of SVD factors.
        digest: the digest of its weights in memory; None for a quantised model, which repacks them.
        lengths: code lengths under this base that its runs have computed.
        gradients: gradients at θ = 0 that its runs have measured.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    weights: WeightFolder | None
    fingerprint: str
    files: str | None
    cache: Path
    digest: str | None = None
    lengths: BaseLengths = field(default_factory=BaseLengths)
    gradients: BaseGradients = field(default_factory=BaseGradients)

    @classmethod
    def loaded(cls, name: str, device: str, cache: Path | None = None) -> "Base":
        """Loads a model.

        Raises:
            CapacityError: if there is no such model, or it cannot be read.
        """
        cache = cache or cache_folder("factors")
        model, tokenizer = load(name, device)
        files = base_digest(name)  # loading may have fetched some of them
        weights = checkpoint_of(name)
        fingerprint = base_fingerprint(model, weights.digests(cache) if weights else None)
        digest = None if parse_model(name).quantised else weights_digest(model)
        return cls(name, model.requires_grad_(False), tokenizer, weights, fingerprint, files, cache, digest)

    @property
    def unchanged(self) -> bool:
        """Tells whether its weights in memory are what they were when it was loaded. True if it has no digest."""
        return self.digest is None or weights_digest(self.model) == self.digest

    def check_unchanged(self) -> None:
        """Checks the weights at the end of a run.

        Raises:
            TrainingError: if they have changed, so that the run is no measurement of its update.
        """
        if not self.unchanged:
            raise TrainingError(f"the frozen weights of {self.name} changed in memory during the run: make it again")

    def adapted(self, adapter: Adapter, layout: Layout = EVEN) -> AdaptedModel:
        """Returns a model of its own on these weights, with an update on it.

        Only an update of the weights themselves has a copy of them.

        Raises:
            SpecError: if the adapter does not fit the model.
        """
        model = copy.deepcopy(self.model) if adapter.form == "weights" else shared_copy(self.model)
        found = attach(model, adapter, self.cache, layout=layout, weights=self.weights)
        if isinstance(found, OwnWeightsModel):  # the untrained values are here already
            found.base_state = {name: self.model.get_parameter(name) for name in found.untrained}
        return found


@dataclass
class Bases:
    """What a worker has loaded: the base and the task of the last run.

    Attributes:
        device: "cpu" or "cuda".
        cache: the folder of SVD factors; the default one if None.
    """

    device: str
    cache: Path | None = None
    _base: Base | None = field(default=None, repr=False)
    _tasks: dict[str, Task] = field(default_factory=dict, repr=False)
    _lengths: dict[tuple[str, str], Lengths] = field(default_factory=dict, repr=False)

    def of(self, name: str) -> Base:
        """Returns the base of this name. Another one is forgotten first, and one whose files or weights have changed.

        A quantised base is loaded for every run anew, because its first pass repacks the weights on a CPU.

        Raises:
            CapacityError: if it cannot be loaded.
        """
        held = self._base
        if (
            held is not None
            and held.name == name
            and held.files == base_digest(name)
            and not parse_model(name).quantised
            and held.unchanged
        ):
            return held
        self._base = None
        self._base = Base.loaded(name, self.device, self.cache)
        return self._base

    def check(self, spec: RunSpec) -> None:
        """Checks that every prompt of a run fits the model. Each prompt is encoded once.

        Raises:
            CapacityError: if one does not, or cannot be encoded.
        """
        known = self._lengths.setdefault((spec.model, spec.task.problems), {})
        held = self._base if self._base is not None and self._base.name == spec.model else self.of(spec.model)
        check_run(spec, self.task(spec.task), held.tokenizer, known)

    def task(self, spec: TaskSpec) -> Task:
        """Returns a task, which is opened once.

        Raises:
            CapacityError: if its data cannot be read.
        """
        if spec.label not in self._tasks:
            self._tasks[spec.label] = open_task(spec)
        return self._tasks[spec.label]
