"""Stored anew and evaluated again: sizes, distortion and answers of one trained update in every dtype."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FINGERPRINT, add, result, spec, study_in
from typer.testing import CliRunner

from capacity.adapters.attach import attach
from capacity.adapters.files.artifact import base_fingerprint, pack, read_file, store
from capacity.adapters.files.codec import payload_bytes
from capacity.errors import DataError
from capacity.models.loading import load
from capacity.plan.storage import STORAGE_DTYPES
from capacity.plan.storage import payload_bytes as planned_bytes
from capacity.runs.cell import cell_of
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.sampling.evaluate import evaluate
from capacity.spec.parts import WarmStartSpec
from capacity.spec.result import Outcome, Result, Step
from capacity.studies import requantise as module
from capacity.studies.requantise import requantise
from capacity.tasks.catalog import open_task
from capacity_analysis.data.read import read_points
from capacity_cli.app import app

ITEMS = 16


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The base and one grpo run of fp32 numbers, not trained but drawn."""
    made = Study(tmp_path_factory.mktemp("requantise") / "study")
    environment = current("cpu", "fp32")
    with made.locked():
        for method in ("base", "grpo"):
            run_spec = spec(method, items=ITEMS).model_copy(update={"storage_dtype": "fp32"})
            model, tokenizer = load(run_spec.model, "cpu")
            base = base_fingerprint(model)
            adapted = attach(model, run_spec.adapter, None)
            extra: dict[str, Any] = {"trained_parameters": 0, "update_bytes": 0, "header_bytes": 0}
            artifact = None
            if method != "base":
                adapted.set_vector(0.02 * torch.randn(13, generator=torch.Generator().manual_seed(1)))
                payload = store(adapted, "fp32")
                artifact = pack(adapted, payload, model=run_spec.model, base=base, dtype="fp32", run=run_spec.identity)
                size = payload_bytes(payload)
                extra = {"trained_parameters": 13, "update_bytes": size, "header_bytes": len(artifact) - size}
            found = evaluate(
                adapted.model, tokenizer, open_task(run_spec.task), run_spec.evaluation, run_seed=run_spec.seed
            )
            counts = {"n_items": found.n_items, "n_correct": found.n_correct, "accuracy": found.accuracy}
            counted = Result.model_validate({"model_parameters": 859776, "family": "abacus", **extra, **counts})
            made.add(run_spec, environment, counted, [], found.outcomes, artifact)
    return made


def test_every_dtype_with_its_sizes_and_distortion(study: Study):
    done = requantise(study, "cpu")
    rows = {row["storage_dtype"]: row for row in done.summary()}
    assert list(rows) == list(STORAGE_DTYPES)
    assert done.unfit == ()
    for dtype in STORAGE_DTYPES:
        if dtype != "entropy":
            assert rows[dtype]["payload_bytes"] == planned_bytes(13, dtype)
    assert (rows["int4"]["codes_bytes"], rows["int4"]["scale_bytes"]) == (7, 2)
    assert rows["fp32"]["distortion"] == 0
    assert 0 < rows["fp16"]["distortion"] < rows["bf16"]["distortion"] < rows["fp8"]["distortion"]
    assert rows["bf16"]["distortion"] < rows["int8"]["distortion"] < rows["int4"]["distortion"] < 0.05
    for row in rows.values():
        assert row["total_bytes"] == row["payload_bytes"] + row["header_bytes"]
        assert row["header_bytes"] > 200
        assert np.shape(row["outcomes"]) == np.shape(row["as_trained"]) == (1, ITEMS)


def test_the_update_as_trained_answers_as_its_run_did(study: Study):
    (own,) = [s for s in requantise(study, "cpu").stored if s.storage_dtype == "fp32"]
    assert list(own.correct) == [float(row.correct[0]) for row in own.run.outcomes()]
    assert own.header_bytes == own.run.result.header_bytes
    assert own.payload_bytes == own.run.result.update_bytes


def test_what_is_done_is_not_done_again_and_what_is_missing_is(study: Study, monkeypatch: pytest.MonkeyPatch):
    first = requantise(study, "cpu")
    opened = []
    real = module.open_native
    monkeypatch.setattr(module, "open_native", lambda *args: opened.append(1) or real(*args))
    assert requantise(study, "cpu") == first
    assert opened == []
    next((study.folder / "requantised").glob("*-int8.json")).unlink()
    assert requantise(study, "cpu") == first
    assert opened == [1]


def test_equal_vectors_are_evaluated_once(study: Study, monkeypatch: pytest.MonkeyPatch):
    for path in (study.folder / "requantised").glob("*.json"):
        path.unlink()
    (run,) = [r for r in study.runs() if r.spec.method == "grpo"]
    read = read_file(run.folder / "update.safetensors")
    calls = []
    real = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *args, **options: calls.append(1) or real(*args, **options))
    requantise(study, "cpu", dtypes=("fp32", "bf16"))
    assert len(calls) == 2
    assert read.recipe.storage_dtype == "fp32"
    requantise(study, "cpu", dtypes=("fp32",))
    assert len(calls) == 2


def test_records_of_another_environment_are_made_anew_and_damaged_ones_refused(study: Study):
    requantise(study, "cpu", dtypes=("bf16",))
    path = next((study.folder / "requantised").glob("*-bf16.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"fingerprint": "other", "correct": [0.0] * ITEMS}))
    requantise(study, "cpu", dtypes=("bf16",))
    assert json.loads(path.read_text()) == record
    path.write_text("{}")
    with pytest.raises(DataError, match="not the record of an update"):
        requantise(study, "cpu", dtypes=("bf16",))
    path.unlink()


def test_command(study: Study):
    done = CliRunner().invoke(app, ["bits", "--requantise", str(study.folder), "--json", "--replicates", "100"])
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    rates = {row["storage_dtype"]: row for row in found["rate_distortion"]}
    assert rates["fp32"]["change"] == 0
    assert rates["int4"]["gaussian_limit"] == pytest.approx(4.0 ** -(9 * 8 / 13))
    assert {place["storage_dtype"] for place in found["frontier"]} == set(STORAGE_DTYPES)
    text = (
        CliRunner().invoke(app, ["bits", "--requantise", str(study.folder), "--replicates", "100", "--details"]).stdout
    )
    assert "Rate and distortion of the trained updates" in text


def done_before(study: Study, correct: dict[str, list[float]]) -> None:
    """Records of all trained runs of a study, with the shares of correct samples in each dtype."""
    (study.folder / "requantised").mkdir()
    for run in study.runs():
        for dtype in correct if run.spec.training else ():
            record = {
                "run": run.spec.identity, "storage_dtype": dtype, "fingerprint": current("cpu", "fp32").digest,
                "unfit": "", "header_bytes": 500, "codes_bytes": 26, "scale_bytes": 0, "distortion": 0.0,
                "correct": correct[dtype],
            }  # fmt: skip
            path = study.folder / "requantised" / f"{run.spec.short_id}-{dtype}.json"
            path.write_text(json.dumps(record))


def test_runs_that_differ_in_their_protocol_or_warm_start_are_not_averaged(tmp_path: Path):
    study = study_in(tmp_path)
    for seed in range(3):
        for temperature in (0.0, 1.0):
            add(study, spec("grpo", seed, 2, temperature), [1, 0])
        for rate in (0.003, 0.01):
            warm = {"warm_start": WarmStartSpec(learning_rate=rate)}
            add(study, spec("sft+grpo", seed, 2).model_copy(update=warm), [1, 0])
        add(study, spec("sft", seed, 2), [1, 0])
    done_before(study, {"bf16": [1.0, 0.0]})
    rows = requantise(study, "cpu", dtypes=("bf16",)).summary()
    assert [(row["method"], row["differs"], row["seeds"]) for row in rows] == [
        ("grpo", "evaluation.temperature 0", 3),
        ("grpo", "evaluation.temperature 1", 3),
        ("sft", "", 3),
        ("sft+grpo", "warm_start.learning_rate 0.003", 3),
        ("sft+grpo", "warm_start.learning_rate 0.01", 3),
    ]
    assert len({row["cell"] for row in rows}) == 5


def test_rows_of_the_points_table_are_runs_of_their_dtype_with_its_answers(tmp_path: Path):
    study = study_in(tmp_path)
    for run_spec in (spec("base", items=2), spec("sft", items=2), spec("sft", 1, items=2)):
        add(study, run_spec, [1, 0])
    done_before(study, {"bf16": [1.0, 0.0], "int4": [0.0, 0.0]})
    frame = (points := read_points(str(requantise(study, "cpu", dtypes=("int4",)).points))).frame
    assert points.lacking == ()
    assert frame["run"].nunique() == len(frame) == 1 + 2 * 2
    for dtype, right in (("bf16", [1, 0]), ("int4", [0, 0])):
        rows = frame.index[(frame["storage_dtype"] == dtype) & (frame["method"] == "sft")]
        stored = [spec("sft", seed, items=2).model_copy(update={"storage_dtype": dtype}) for seed in (0, 1)]
        assert list(frame.loc[rows, "run"]) == [one.short_id for one in stored]
        assert set(frame.loc[rows, "cell"]) == {cell_of(stored[0]).identity}
        assert [points.fields[row]["storage_dtype"] for row in rows] == [dtype] * 2
        assert points.outcomes is not None
        assert points.outcomes[rows].tolist() == [right] * 2


def test_several_samples_an_item_keep_their_shares(tmp_path: Path):
    study, plain = study_in(tmp_path), spec("sft", items=2)
    twice = plain.model_copy(update={"evaluation": plain.evaluation.model_copy(update={"samples_per_item": 2})})
    graded = [
        Outcome(item=f"test-{i}", correct=pair, completions=("#", "#")) for i, pair in enumerate([(0, 1), (1, 1)])
    ]
    measured = result(twice, [1, 0], n_items=2, n_correct=3, accuracy=0.75)
    study.add(twice, FINGERPRINT, measured, [Step(step=0, loss=1.0)], graded, b"theta")
    done_before(study, {"bf16": [0.5, 1.0], "int4": [0.5, 0.0]})
    points = read_points(str(requantise(study, "cpu", dtypes=("int4",)).points))
    assert points.outcomes is not None
    assert points.outcomes.tolist() == [[0.5, 1.0], [0.5, 0.0]]


def test_one_update_of_runs_in_several_dtypes_stands_once_in_each(tmp_path: Path):
    study = study_in(tmp_path)
    for dtype in ("int8", "fp32"):
        add(study, spec("sft", items=2).model_copy(update={"storage_dtype": dtype}), [1, 0])
    done_before(study, {dtype: [1.0, 0.0] for dtype in ("fp32", "int8", "int4")})
    widest = spec("sft", items=2).model_copy(update={"storage_dtype": "fp32"})
    path = study.folder / "requantised" / f"{widest.short_id}-int4.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"correct": [1.0, 1.0]}))
    done = requantise(study, "cpu", dtypes=("fp32", "int8", "int4"))
    frame = read_points(str(done.points)).frame
    assert dict(zip(frame["storage_dtype"], frame["accuracy"], strict=True)) == {"fp32": 0.5, "int8": 0.5, "int4": 1.0}
    assert len(done.summary()) == 2 * 3


def test_a_study_without_updates_is_refused(tmp_path: Path):
    empty = Study(tmp_path / "study")
    with empty.locked():
        pass
    with pytest.raises(DataError, match="nothing can be stored anew"):
        requantise(empty, "cpu")
