"""All runs of a study file, and accuracy against size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.library.answers.comparison import sizes_answer
from capacity.library.report import Page, page_of
from capacity.library.shown import Shown
from capacity.library.study import Study
from capacity.plan.adaptive_file import AdaptiveFile, is_adaptive, parse_adaptive, read_any_study
from capacity.plan.study_file import StudyFile, parse_study
from capacity.runs.fingerprint import Trainer, parse_trainer
from capacity.studies.make import MadeStudy, Observer, unobserved
from capacity.studies.sweep import POINTS, default_folder, make_sweep
from capacity_analysis.compare.sizes_table import collapses, size_cells, size_json
from capacity_analysis.data.cell_results import CellResult
from capacity_analysis.data.table import study_points
from capacity_reports.blocks import Block, Text
from capacity_reports.sections.comparison import size_table


@dataclass(frozen=True, repr=False)
class Swept(Shown):
    """Accuracy against size.

    Attributes:
        made: the study with its complete and failed runs.
        sizes: the accuracy of every cell on the test split.
        page: the report of the study, if one was wanted.
    """

    made: MadeStudy
    sizes: tuple[CellResult, ...]
    page: Page

    @property
    def study(self) -> Study:
        """The study folder."""
        return Study(self.made.study.folder)

    @property
    def points(self) -> Path:
        """The file of the points table."""
        return self.made.study.folder / POINTS

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        collapsed = collapses(self.sizes)
        return {
            "study": str(self.made.study.folder),
            "points": str(self.points),
            "runs": len(self.made.runs),
            "failed": [{"label": f.label, "message": f.message} for f in self.made.failures],
            "sizes": [size_json(cell, collapsed.get(cell.identity)) for cell in self.sizes],
            "remarks": list(self.made.remarks),
            "wall_seconds": round(self.made.wall_seconds, 1),
            "reused": [one.to_json() for one in self.made.reused],
            **self.page.to_json(),
        }

    @property
    def line(self) -> str:
        """How many runs there are, and where."""
        failed = f", {self.made.failed} failed" if self.made.failed else ""
        return f"{len(self.made.runs)} runs in {self.made.study.folder}{failed}"

    @property
    def answer(self) -> Sequence[Block]:
        """How many runs there are, the most accurate update of each model, and accuracy against size."""
        return sizes_answer(self.sizes, len(self.made.runs), self.made.failed)

    @property
    def blocks(self) -> Sequence[Block]:
        """Accuracy against size, and what to know of the rates."""
        table = [size_table(self.sizes)] if self.sizes else []
        return [*table, *([Text(self.made.remarks, bullets=True)] if self.made.remarks else [])]


def sweep(
    study: str | Path | Mapping[str, Any] | StudyFile | AdaptiveFile,
    *,
    trainer: Trainer = "loop",
    workers: int | None = None,
    together: int | None = None,
    out: str | Path | None = None,
    allow_mixed: bool = False,
    reuse: bool | None = None,
    page: bool = False,
    observe: Observer = unobserved,
    checkpoint_minutes: float | None = None,
    executor: str | None = None,
    devices: Sequence[int] | None = None,
    ray: str | None = None,
) -> Swept:
    """Makes all runs of a study: models, tasks, methods, sizes, rates and seeds. Continues where it stopped.

    A study with `design = "adaptive"` chooses its runs until its goal is reached; `remarks` says how it ended.

    Runs are made in processes that import the calling script again: call it under `if __name__ == "__main__":` there.

    Args:
        study: a study file (TOML), or what one says as a mapping.
        trainer: what makes the steps: "loop", or "trl" for the trainers of TRL, which give the same update.
        workers: processes; one a core, at most four, if None.
        together: the largest number of runs on one base that share their passes. If None: what the study says, else one
            on a CPU, and as many as fit on a GPU, at most 16.
        out: study folder; capacity-studies/NAME if None.
        allow_mixed: reuse runs of the study that another environment made.
        reuse: copy runs of this environment that a study beside this one has. If None: unless `out` is given.
        page: write the report of the study.
        observe: watches the runs.
        checkpoint_minutes: the time between two checkpoints of a run in training; 0: none are made; 5 if None.
        executor: "local" for workers on this machine, "ray" for a Ray cluster; what the study says if None.
        devices: the GPUs that local workers use, by number; what the study says if None, else all.
        ray: the address of a running Ray cluster. It implies the executor "ray".

    Raises:
        SpecError: a field is unknown, missing or out of range, or a GPU is not there.
        DataError: the file cannot be read.
        CapacityError: the libraries of training are absent, or the study is in use or of another environment.
    """
    file = study if isinstance(study, StudyFile | AdaptiveFile) else _read(study)
    folder = default_folder(file) if out is None else Path(out)
    choice = file.executor_choice(executor, None if devices is None else tuple(devices), ray)
    made = make_sweep(
        file, folder, workers=workers, together=together, trainer=parse_trainer(trainer),
        observe=observe, allow_mixed=allow_mixed, reuse=out is None if reuse is None else reuse,
        checkpoint_minutes=checkpoint_minutes, executor=choice,
    )  # fmt: skip
    sizes = tuple(size_cells(study_points(folder, made.runs))) if made.runs else ()
    return Swept(made, sizes, page_of(folder, allow_mixed=allow_mixed) if page else Page())


def _read(study: str | Path | Mapping[str, Any]) -> StudyFile | AdaptiveFile:
    if isinstance(study, Mapping):
        return parse_adaptive(study, "study") if is_adaptive(study) else parse_study(study, "study")
    return read_any_study(Path(study))
