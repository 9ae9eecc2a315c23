"""Runs in training, without what comes before and after it."""

from capacity.spec.run import RunSpec
from capacity.training.base import Base, Bases
from capacity.training.batch import Cost, Recorder
from capacity.training.loop import Trainee
from capacity.training.phases import phases


def trainee(spec: RunSpec, base: Base, loaded: Bases, recorder: Recorder | None = None) -> Trainee:
    """Returns a run in training on a loaded base."""
    adapted = base.adapted(spec.adapter)
    recorder = recorder or Recorder([], Cost())
    return Trainee(phases(adapted, base.tokenizer, loaded.task(spec.task), spec, recorder))
