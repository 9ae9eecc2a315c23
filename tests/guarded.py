"""Studies made up for the tests of baselines and checks: curves over sizes, several seeds, nothing trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest

from capacity.runs import files
from capacity.runs.fingerprint import Fingerprint
from capacity.runs.study import Run, Study
from capacity.spec.result import Outcome
from capacity.spec.run import RunSpec, load_spec

ITEMS = 400
SIZES = {4: 0.5, 13: 0.6, 100: 0.8}
OTHER = Fingerprint(sources="t", versions={"torch": "2.13.0"}, device="cpu", dtype="fp32")


@dataclass(frozen=True)
class MadeRun(Run):
    """A run that is nowhere on disk."""

    rows: list[Outcome] = field(default_factory=list)

    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(self.rows)


class MadeStudy(Study):
    """A study in memory: disks are slow where every run is synced."""

    def __init__(self, name: str = "study") -> None:
        super().__init__(Path(name))
        self.made: list[MadeRun] = []
        self.planned: list[RunSpec] = []

    def runs(self) -> list[Run]:
        return [*self.made]

    @property
    def has_plan(self) -> bool:
        return True

    def plan(self) -> list[RunSpec]:
        return self.planned


def spec(method: str, size: int, seed: int, items: int = ITEMS, **training: Any) -> RunSpec:
    raw = fakes.raw_spec(method, seed, items)
    if size:
        raw["adapter"]["groups"] = size
        raw["training"].update(training)
    return load_spec(raw, "a test")


def answers(accuracy: float, key: Sequence[int], items: int = ITEMS) -> list[int]:
    """Right with probability `accuracy`; the same key, the same luck."""
    draws = np.random.default_rng(key).random(items)
    return [int(draw < accuracy) for draw in draws]


def add(
    study: MadeStudy,
    run_spec: RunSpec,
    correct: list[int],
    fingerprint: Fingerprint = fakes.FINGERPRINT,
    first_item: int = 0,
) -> None:
    size = getattr(run_spec.adapter, "groups", 0)
    result = fakes.result(run_spec, correct, trained_parameters=size, update_bytes=2 * size)
    rows = fakes.outcomes(correct, first_item)
    study.made.append(MadeRun(Path(run_spec.label), run_spec, fingerprint, result, rows))


def make(
    *,
    methods: Sequence[str] = ("grpo",),
    sizes: Mapping[int, float] = SIZES,
    seeds: Sequence[int] = range(5),
    draw: int = 0,
    shift: float = 0.0,
    fingerprint: Fingerprint = fakes.FINGERPRINT,
    base: bool = True,
    first_item: int = 0,
    items: int = ITEMS,
    **training: Any,
) -> MadeStudy:
    """A study with one run a method, size and seed, accurate as `sizes` says plus `shift`.

    Studies of the same `draw` answer the same; those of another as fresh runs of the same project do.
    """
    study = MadeStudy()
    for m, method in enumerate(methods):
        for size, accuracy in sizes.items():
            for seed in seeds:
                correct = answers(accuracy + shift, (draw, m, size, seed), items)
                add(study, spec(method, size, seed, items, **training), correct, fingerprint, first_item)
    if base:
        add(study, spec("base", 0, 0, items), answers(0.5, (7,), items), fingerprint, first_item)
    return study


def write(made: MadeStudy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study on disk, without waiting for the disk."""
    monkeypatch.setattr(files, "_fsync", lambda _: None)
    study = Study(folder)
    with study.locked():
        study.write_plan([run.spec for run in made.made])
        for run in made.made:
            study.add(run.spec, run.fingerprint, run.result, [], run.rows, None)
    return folder
