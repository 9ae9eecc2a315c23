"""Trained updates stored anew in other dtypes and evaluated again: the rate–distortion of an update, as it is used.

    STUDY/requantised/<run>-<dtype>.json   one update in one dtype: sizes, distortion, answers
    STUDY/requantised/points.csv           all of them as a points table, with the untrained base

What is stored anew is the update of the run's artifact. That one was rounded to the run's own dtype when it was
trained: a study of fp32 updates shows the whole range, of bf16 updates only what lies below bf16.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from capacity.adapters.files.artifact import pack, store
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.model import AdaptedModel
from capacity.adapters.open import open_native
from capacity.errors import DataError
from capacity.plan.storage import STORAGE_DTYPES
from capacity.runs import files
from capacity.runs.answers import answers_of
from capacity.runs.fingerprint import current
from capacity.runs.points import points, to_csv
from capacity.runs.study import Run, Study
from capacity.sampling.evaluate import evaluate
from capacity.tasks.catalog import open_task

FOLDER = "requantised"
_FIELDS = {"run", "storage_dtype", "fingerprint", "unfit", "header_bytes", "codes_bytes", "scale_bytes", "distortion"}


@dataclass(frozen=True)
class Stored:
    """One run's update in one storage dtype.

    Attributes:
        run: whose update.
        storage_dtype: of what is stored anew.
        codes_bytes: the numbers themselves.
        scale_bytes: their scales.
        header_bytes: everything else in the artifact.
        distortion: ‖stored − trained‖² / ‖trained‖².
        correct: share of right samples on each item, in the order of the run's outcomes.
    """

    run: Run
    storage_dtype: str
    codes_bytes: int
    scale_bytes: int
    header_bytes: int
    distortion: float
    correct: tuple[float, ...]

    @property
    def payload_bytes(self) -> int:
        """Numbers and scales."""
        return self.codes_bytes + self.scale_bytes

    @property
    def accuracy(self) -> float:
        """Share of right samples."""
        return sum(self.correct) / len(self.correct)


@dataclass(frozen=True)
class Requantised:
    """All updates of a study in all dtypes that hold them.

    Attributes:
        points: the points table that was written.
        stored: one a run and dtype.
        unfit: label of the run, dtype and reason for those that a dtype cannot hold.
    """

    points: Path
    stored: tuple[Stored, ...]
    unfit: tuple[tuple[str, str, str], ...]

    def summary(self) -> list[dict[str, Any]]:
        """One row a configuration and dtype, means over seeds; `outcomes` and `as_trained` are seeds × items."""
        own = {s.run.spec.identity: s for s in self.stored if s.storage_dtype == s.run.spec.storage_dtype}
        rows = []
        ordered = sorted(self.stored, key=lambda s: (_arm(s.run), STORAGE_DTYPES.index(s.storage_dtype)))
        for (_, dtype), members in groupby(ordered, key=lambda s: (_arm(s.run), s.storage_dtype)):
            seeds = list(members)
            run = seeds[0].run
            count, n = run.result.trained_parameters, len(seeds)
            payload = sum(s.payload_bytes for s in seeds) / n
            header = sum(s.header_bytes for s in seeds) / n
            accuracy = sum(s.accuracy for s in seeds) / n
            rows.append(
                {
                    "model": run.spec.model,
                    "method": run.spec.method,
                    "adapter": run.spec.adapter.kind,
                    "trained_parameters": count,
                    "trained_as": run.spec.storage_dtype,
                    "storage_dtype": dtype,
                    "seeds": n,
                    "codes_bytes": sum(s.codes_bytes for s in seeds) / n,
                    "scale_bytes": sum(s.scale_bytes for s in seeds) / n,
                    "payload_bytes": payload,
                    "header_bytes": header,
                    "total_bytes": payload + header,
                    "bits_per_parameter": 8 * payload / count,
                    "distortion": sum(s.distortion for s in seeds) / n,
                    "accuracy": accuracy,
                    "outcomes": [s.correct for s in seeds],
                    "as_trained": [own[s.run.spec.identity].correct for s in seeds],
                }
            )
        return rows


def _arm(run: Run) -> tuple[str, ...]:
    """What the seeds of a configuration have in common, sortable by size."""
    spec = run.spec
    assert spec.training is not None
    adapter = {k: v for k, v in spec.adapter.model_dump().items() if not k.endswith("_seed")}
    size = f"{run.result.trained_parameters:015d}"
    return (spec.model, spec.method, size, str(adapter), spec.task.label, spec.storage_dtype, str(spec.training))


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
                records[dtype] = {**record, "fingerprint": environment}
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
        evaluation = evaluate(adapted.model, tokenizer, open_task(run.spec.task), run.spec.evaluation)
        correct = answers_of(evaluation.outcomes, run.spec.label).shares.tolist()
        evaluated.append((now.clone(), correct))
    scales = payload_bytes({name: t for name, t in payload.items() if name == "scales"})
    energy = float((trained**2).sum())
    return head | {
        "codes_bytes": payload_bytes(payload) - scales,
        "scale_bytes": scales,
        "header_bytes": len(artifact) - payload_bytes(payload),
        "distortion": float(((now.double() - trained) ** 2).sum()) / energy if energy else 0.0,
        "correct": correct,
    }


def _read(path: Path, run: Run, environment: str) -> dict[str, Any] | None:
    """A record made earlier, None if there is none or another environment made it.

    Raises:
        DataError: it cannot be read.
    """
    if not path.exists():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict) or _FIELDS - set(record) or record["run"] != run.spec.identity:
        raise DataError(f"{path}: not the record of an update that was stored anew: remove it")
    return record if record["fingerprint"] == environment else None


def _stored(run: Run, record: dict[str, Any]) -> Stored:
    return Stored(
        run=run,
        storage_dtype=record["storage_dtype"],
        codes_bytes=record["codes_bytes"],
        scale_bytes=record["scale_bytes"],
        header_bytes=record["header_bytes"],
        distortion=record["distortion"],
        correct=tuple(record["correct"]),
    )


def _rows(study: Study, runs: Sequence[Run], stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Rows of the points table: the base as it was, every update in every dtype."""
    name = study.folder.resolve().name
    rows = points(name, [run for run in runs if run.spec.training is None])
    for one in stored:
        samples = one.run.spec.evaluation.samples_per_item
        changed = {
            "storage_dtype": one.storage_dtype,
            "update_bytes": one.payload_bytes,
            "n_correct": round(sum(one.correct) * samples),
            "accuracy": one.accuracy,
        }
        rows.append(points(name, [one.run])[0] | changed)
    return rows
