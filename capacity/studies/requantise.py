"""Trained updates stored anew in other dtypes and evaluated again: the rate–distortion of an update, as it is used.

    STUDY/requantised/<run>-<dtype>.json   one update in one dtype: sizes, distortion, answers
    STUDY/requantised/points.csv           all of them as a points table, with the untrained base

What is stored anew is the update of the run's artifact. That one was rounded to the run's own dtype when it was
trained. A study of fp32 updates shows the whole range. A study of bf16 updates shows only what lies below bf16.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from capacity.adapters.files.artifact import CHOICE, pack, store
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.model import AdaptedModel
from capacity.adapters.open import open_native
from capacity.errors import DataError
from capacity.plan.storage import STORAGE_DTYPES
from capacity.runs import files
from capacity.runs.answers import Answers, answers_of
from capacity.runs.cell import Cell, cells, labels
from capacity.runs.fingerprint import current
from capacity.runs.points import point, points, to_csv
from capacity.runs.study import Run, Study
from capacity.sampling.evaluate import evaluate
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task

FOLDER = "requantised"
_FIELDS = {"run", "storage_dtype", "fingerprint", "unfit", "header_bytes", "codes_bytes", "scale_bytes", "distortion"}


@dataclass(frozen=True)
class Stored:
    """One run's update in one storage dtype.

    Attributes:
        run: whose update it is.
        storage_dtype: of what is stored anew.
        codes_bytes: size of the numbers themselves.
        scale_bytes: size of their scales.
        choice_bytes: size of the choice of the projection, 0 if it is random.
        header_bytes: size of everything else in the artifact.
        distortion: ‖stored − trained‖² / ‖trained‖².
        correct: share of correct samples on each item, in the order of the run's outcomes.
    """

    run: Run
    storage_dtype: str
    codes_bytes: int
    scale_bytes: int
    choice_bytes: int
    header_bytes: int
    distortion: float
    correct: tuple[float, ...]

    @property
    def spec(self) -> RunSpec:
        """The spec of the run with the storage dtype replaced: the identity of this update in tables."""
        return self.run.spec.model_copy(update={"storage_dtype": self.storage_dtype})

    @property
    def payload_bytes(self) -> int:
        """Size of numbers, scales and choice together."""
        return self.codes_bytes + self.scale_bytes + self.choice_bytes

    @property
    def accuracy(self) -> float:
        """Share of correct samples over all items."""
        return sum(self.correct) / len(self.correct)

    @property
    def answers(self) -> Answers:
        """The answers, the correct ones of an item first: their order among its samples is not kept."""
        samples = self.run.spec.evaluation.samples_per_item
        right = np.rint(np.array(self.correct) * samples)
        return Answers(self.run.answers.items, np.arange(samples) < right[:, None])


@dataclass(frozen=True)
class Requantised:
    """All updates of a study in all dtypes that hold them.

    Attributes:
        points: the points table that was written.
        stored: the updates, one a run and dtype.
        unfit: label of the run, dtype and reason for those that a dtype cannot hold.
    """

    points: Path
    stored: tuple[Stored, ...]
    unfit: tuple[tuple[str, str, str], ...]

    def summary(self) -> list[dict[str, Any]]:
        """One row a trained cell and dtype, with means over seeds.

        `differs` tells a cell from others of the same model, method, adapter, size and dtype of training. `outcomes`
        and `as_trained` are seeds × items: shares of correct samples as stored and as trained.
        """
        own = {s.run.spec.identity: s for s in self.stored if s.storage_dtype == s.run.spec.storage_dtype}
        grouped = cells(self.stored, lambda s: s.run.cell)
        shown = {cell: (*_columns(members[0].run), cell.spec.storage_dtype) for cell, members in grouped.items()}
        differs = labels(shown)
        rows = []
        for cell in sorted(grouped, key=lambda cell: (shown[cell], differs[cell])):
            for dtype in STORAGE_DTYPES:
                seeds = [s for s in grouped[cell] if s.storage_dtype == dtype]
                if seeds:
                    rows.append(_mean(cell, differs[cell], dtype, seeds, [own[s.run.spec.identity] for s in seeds]))
        return rows


def _columns(run: Run) -> tuple[str, str, int, str]:
    """What a table says of a run in any case, in the order of its rows."""
    return run.spec.model, run.spec.method, run.result.trained_parameters, run.spec.adapter.kind


def _mean(cell: Cell, differs: str, dtype: str, seeds: Sequence[Stored], trained: Sequence[Stored]) -> dict[str, Any]:
    """The row of one cell in one dtype. `trained`: the same seeds as their runs stored them."""
    n, count = len(seeds), seeds[0].run.result.trained_parameters
    payload = sum(s.payload_bytes for s in seeds) / n
    header = sum(s.header_bytes for s in seeds) / n
    return {
        "model": cell.spec.model,
        "method": cell.spec.method,
        "adapter": cell.spec.adapter.kind,
        "trained_parameters": count,
        "trained_as": cell.spec.storage_dtype,
        "storage_dtype": dtype,
        "cell": cell.identity,
        "differs": differs,
        "seeds": n,
        "codes_bytes": sum(s.codes_bytes for s in seeds) / n,
        "scale_bytes": sum(s.scale_bytes for s in seeds) / n,
        "choice_bytes": sum(s.choice_bytes for s in seeds) / n,
        "payload_bytes": payload,
        "header_bytes": header,
        "total_bytes": payload + header,
        "bits_per_parameter": 8 * payload / count,
        "distortion": sum(s.distortion for s in seeds) / n,
        "accuracy": sum(s.accuracy for s in seeds) / n,
        "outcomes": [s.correct for s in seeds],
        "as_trained": [s.correct for s in trained],
    }


def requantise(
    study: Study,
    device: str,
    *,
    dtypes: Sequence[str] = STORAGE_DTYPES,
    cache: Path | None = None,
    on_update: Callable[[int, int], None] | None = None,
) -> Requantised:
    """Stores every trained update of a study in every dtype and evaluates it as its run was evaluated.

    What was done in the present environment is not done again, so an interrupted call goes on where it stopped.

    Args:
        study: its complete runs on the test split are taken.
        device: "cpu" or "cuda".
        dtypes: to store in; the run's own is always among them.
        cache: of SVD factors; the default one if None.
        on_update: called with (updates done, all updates).

    Raises:
        DataError: no trained run in the study, or an artifact that cannot be rebuilt here.
        StudyLockedError: another process works on the study.
    """
    runs = [run for run in study.runs() if run.spec.evaluation.split == "test"]
    trained = [run for run in runs if run.spec.training is not None]
    if not trained:
        raise DataError(f"{study.folder}: no complete run of a trained update, so nothing can be stored anew")
    environment = current(device, "fp32").digest
    stored: list[Stored] = []
    unfit: list[tuple[str, str, str]] = []
    with study.locked():
        folder = study.folder / FOLDER
        folder.mkdir(exist_ok=True)
        for done, run in enumerate(trained):
            if on_update is not None:
                on_update(done, len(trained))
            for record in _of_run(run, folder, environment, device, dtypes, cache):
                if record["unfit"]:
                    unfit.append((run.spec.label, record["storage_dtype"], record["unfit"]))
                else:
                    stored.append(_stored(run, record))
        table = folder / "points.csv"
        files.write_atomically(table, to_csv(_rows(study, runs, stored)))
    return Requantised(table, tuple(stored), tuple(unfit))


def _of_run(
    run: Run, folder: Path, environment: str, device: str, dtypes: Sequence[str], cache: Path | None
) -> list[dict[str, Any]]:
    """The records of one run, those that are missing made now."""
    own = run.spec.storage_dtype
    wanted = [own, *(dtype for dtype in dtypes if dtype != own)]
    paths = {dtype: folder / f"{run.spec.short_id}-{dtype}.json" for dtype in wanted}
    records = {dtype: _read(path, run, environment) for dtype, path in paths.items()}
    if any(record is None for record in records.values()):
        # Equal vectors have equal answers: they are evaluated once.
        evaluated: list[tuple[Tensor, list[float]]] = []
        opened = open_native(run.folder, None, device, cache)
        assert opened.adapted is not None
        assert opened.artifact is not None
        trained = opened.adapted.vector().clone()
        base = opened.artifact.recipe.base
        for dtype in wanted:
            if records[dtype] is None:
                opened.adapted.set_vector(trained)
                record = _record(run, dtype, opened.adapted, opened.tokenizer, base, evaluated)
                records[dtype] = {**record, "fingerprint": environment, "base": run.result.base_fingerprint}
                files.write_atomically(paths[dtype], json.dumps(records[dtype], allow_nan=False) + "\n")
    return [record for record in records.values() if record is not None]


def _record(
    run: Run, dtype: str, adapted: AdaptedModel, tokenizer: Any, base: str, evaluated: list[tuple[Tensor, list[float]]]
) -> dict[str, Any]:
    """Stores the update that `adapted` holds in `dtype` and evaluates what is left of it."""
    head: dict[str, Any] = {"run": run.spec.identity, "storage_dtype": dtype, "unfit": ""}
    trained = adapted.vector().double()
    try:
        payload = store(adapted, dtype)
    except DataError as error:
        empty = dict.fromkeys(("codes_bytes", "scale_bytes", "header_bytes", "distortion", "correct"))
        return head | empty | {"unfit": str(error)}
    artifact = pack(adapted, payload, model=run.spec.model, base=base, dtype=dtype, run=run.spec.identity)
    now = adapted.vector()
    correct = next((found for vector, found in evaluated if bool((vector == now).all())), None)
    if correct is None:
        evaluation = evaluate(adapted, tokenizer, open_task(run.spec.task), run.spec.evaluation, run_seed=run.spec.seed)
        correct = answers_of(evaluation.outcomes, run.spec.label).shares.tolist()
        evaluated.append((now.clone(), correct))
    scales, choice = (payload_bytes({n: t for n, t in payload.items() if n == part}) for part in ("scales", CHOICE))
    energy = float((trained**2).sum())
    return head | {
        "codes_bytes": payload_bytes(payload) - scales - choice,
        "scale_bytes": scales,
        "choice_bytes": choice,
        "header_bytes": len(artifact) - payload_bytes(payload),
        "distortion": float(((now.double() - trained) ** 2).sum()) / energy if energy else 0.0,
        "correct": correct,
    }


def _read(path: Path, run: Run, environment: str) -> dict[str, Any] | None:
    """A record made earlier, None if there is none or it is of another environment or base.

    Raises:
        DataError: it cannot be read.
    """
    if not path.exists():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict) or _FIELDS - set(record) or record["run"] != run.spec.identity:
        raise DataError(f"{path}: not the record of an update that was stored anew: remove it")
    here = record["fingerprint"] == environment and record.get("base") == run.result.base_fingerprint
    return record if here else None


def _stored(run: Run, record: dict[str, Any]) -> Stored:
    return Stored(
        run=run,
        storage_dtype=record["storage_dtype"],
        codes_bytes=record["codes_bytes"],
        scale_bytes=record["scale_bytes"],
        choice_bytes=record.get("choice_bytes", 0),
        header_bytes=record["header_bytes"],
        distortion=record["distortion"],
        correct=tuple(record["correct"]),
    )


def _rows(study: Study, runs: Sequence[Run], stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Rows of the points table: the base as it was, every update in every dtype.

    Runs that differ in their storage dtype alone hold one update. It stands once in each dtype: as its run stored it,
    else from the run of the widest dtype.
    """
    name = study.folder.resolve().name
    trained_as = {dtype: place for place, dtype in enumerate(STORAGE_DTYPES)}
    rows: dict[str, dict[str, Any]] = {}
    for s in sorted(stored, key=lambda s: (s.spec != s.run.spec, trained_as[s.run.spec.storage_dtype])):
        answers = s.answers
        result = s.run.result.model_copy(
            update={
                "update_bytes": s.payload_bytes,
                "header_bytes": s.header_bytes,
                "n_correct": int(answers.correct.sum()),
                "accuracy": s.accuracy,
            }
        )
        rows.setdefault(s.spec.identity, point(name, s.spec.short_id, s.spec, result, answers))
    return points(name, [run for run in runs if run.spec.training is None]) + list(rows.values())
