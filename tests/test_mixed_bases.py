"""A model whose weights changed between two calls: its runs are stale, and no number is of both bases."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from in_process import capacity as cli
from safetensors.torch import load_file, save_file

import capacity
from capacity.errors import DataError, SpecError
from capacity.models.base_files import base_digest, content_digest
from capacity.runs.mixed import bases, refuse_mixed
from capacity.runs.points import points, to_csv
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity_analysis.check.snapshot import snapshot
from capacity_analysis.data.cell_results import cell_results
from capacity_analysis.data.read import read_points

OLD, NEW = "a" * 64, "b" * 64
STUDY = """
name = "moved"
[[grids]]
models = ["./base"]
methods = ["sft"]
sizes = [{ budget = 13 }]
rates = 0.01
seeds = SEEDS
base = false
[grids.protocol]
steps = 1
warmup_steps = 0
prompts_per_step = 2
samples_per_prompt = 2
test_items = 8
validation_items = 8
temperatures = [1.0]
"""


@pytest.fixture
def pooled(tmp_path: Path) -> Study:
    """Four seeds of one spec and the untrained model. The weights changed after the first two seeds."""
    study = fakes.study_in(tmp_path)
    specs = [fakes.spec(seed=seed) for seed in range(4)]
    study.write_plan([fakes.spec("base"), *specs])
    fakes.add(study, fakes.spec("base"), [1, 0, 0, 0], base_fingerprint=OLD)
    for spec in specs:
        right = [1, 1, 1, 0] if spec.seed < 2 else [0, 0, 0, 0]
        fakes.add(study, spec, right, base_fingerprint=OLD if spec.seed < 2 else NEW)
    return study


def test_cells_of_a_study_folder_are_of_one_base(pooled: Study) -> None:
    points = read_points(str(pooled.folder), allow_mixed=True)
    trained = [cell for cell in cell_results(points) if cell.method == "sft"]
    assert [(cell.seeds, cell.accuracy.value) for cell in trained] == [((0, 1), 0.75), ((2, 3), 0.0)]
    assert [cell.recipe["base"] for cell in trained] == [OLD[:16], NEW[:16]]


def test_a_points_table_keeps_bases_apart(pooled: Study, tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text(to_csv(points("study", pooled.runs())))
    assert [cell.seeds for cell in cell_results(read_points(str(table))) if cell.method == "sft"] == [(0, 1), (2, 3)]
    with pytest.raises(SpecError, match=r"on different weights .*choose with --where base=aaaaaaaaaaaaaaaa"):
        capacity.thresholds(str(table), target=0.5)


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: capacity.thresholds(str(folder), target=0.5),
        lambda folder: capacity.bits(str(folder)),
        capacity.describe,
        lambda folder: capacity.report(folder, out=folder / "report.html"),
        lambda folder: capacity.baseline(folder, folder / "baseline.json"),
        lambda folder: snapshot(Study(folder)),
        lambda folder: capacity.Study(folder).points,
    ],
    ids=["threshold", "bits", "describe", "report", "baseline", "check", "points"],
)
def test_every_reader_notices_mixed_bases(pooled: Study, read: Any) -> None:
    with pytest.raises(
        DataError, match=rf"abacus-0\.9m on different weights .3 on base {OLD[:16]}, 2 on base {NEW[:16]}"
    ):
        read(pooled.folder)


def test_runs_says_that_bases_are_mixed(pooled: Study) -> None:
    done = cli(pooled.folder, "runs", ".")
    assert done.code == 0
    assert f"abacus-0.9m has runs on different weights, which cannot be compared: 3 on base {OLD[:16]}" in done.out
    refused = cli(pooled.folder, "runs", ".", "--points", "points.csv")
    assert "on different weights" in refused.refused(1)
    assert not (pooled.folder / "points.csv").exists()


def test_bases_of_several_models_are_not_mixed(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    other = RunSpec.model_validate({**fakes.raw_spec(), "model": "abacus-3m"})
    found = [
        fakes.add(study, fakes.spec(), [1], base_fingerprint=OLD),
        fakes.add(study, other, [1], base_fingerprint=NEW),
        fakes.add(study, fakes.spec(seed=1), [1]),  # an older version did not record it
    ]
    refuse_mixed(found, study.folder)
    assert bases(found) == {"abacus-0.9m": {OLD: 1}, "abacus-3m": {NEW: 1}}


def test_a_baseline_is_not_compared_with_a_study_on_other_weights(tmp_path: Path) -> None:
    written = []
    for base in (OLD, NEW):
        study = fakes.study_in(tmp_path / base[:1])
        study.write_plan([fakes.spec(seed=0), fakes.spec(seed=1)])
        for seed in range(2):
            fakes.add(study, fakes.spec(seed=seed), [1, 0, 1, 1], base_fingerprint=base)
        written.append(study.folder)
    file = tmp_path / "baseline.json"
    capacity.baseline(written[0], file)
    assert json.loads(file.read_text())["version"] == 3
    assert capacity.check(written[0], file).found.outcome == "identical"
    with pytest.raises(DataError, match=r"the study was made on other weights of abacus-0\.9m than the baseline"):
        capacity.check(written[1], file)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A copy of the smallest model in a folder of the user's."""
    shutil.copytree(Path(str(package_files("capacity.models"))) / "data" / "abacus-0.2m", tmp_path / "base")
    return tmp_path / "base"


def replace_weights(base: Path) -> None:
    """Other weights of the same size, under the same name and with the same time of change."""
    path = base / "model.safetensors"
    status, weights = path.stat(), load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[-1] += 0.5  # beyond the first bytes of the tensor
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "generation_config.json", "model.safetensors"])
def test_the_digest_of_a_base_is_of_all_that_is_loaded(base: Path, name: str) -> None:
    before = base_digest(str(base))
    (base / "README.md").write_text("A note changes nothing.")
    assert base_digest(str(base)) == before
    with (base / name).open("a") as file:
        file.write(" ")
    assert base_digest(str(base)) != before
    assert base_digest(str(base / "absent")) is None


def test_a_large_file_is_read_again_when_it_was_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.write_bytes(bytes(2**24))
    before, status = content_digest(path), path.stat()
    with path.open("r+b") as file:
        file.seek(2**23)
        file.write(b"1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_digest(path) != before
    assert base_digest(str(path)) is not None


def test_a_run_on_replaced_weights_is_stale_in_every_command(base: Path, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(STUDY.replace("SEEDS", "1"))
    (tmp_path / "two.toml").write_text(STUDY.replace("SEEDS", "2"))
    done = cli(tmp_path, "sweep", "one.toml", "--no-report", "--workers", "1")
    assert done.code == 0, done.err
    study = capacity.Study(tmp_path / "capacity-studies" / "moved")
    (model,) = {run.spec.model for run in study.runs()}
    (fingerprint,) = bases(study.runs())[model]
    assert {run.result.base_files for run in study.runs()} == {base_digest(str(base))}
    replace_weights(base)
    listed = cli(tmp_path, "runs", str(study.folder), "--json").json()
    assert {run["state"] for run in listed["runs"]} == {"stale"}
    for file in ("one.toml", "two.toml"):
        refused = cli(tmp_path, "sweep", file, "--no-report").refused(1)
        assert "runs are stale, made on another base (the files of ./base have changed since)" in refused
    assert len(study.runs()) == 1
    mixed = cli(tmp_path, "sweep", "two.toml", "--no-report", "--allow-mixed", "--workers", "1")
    assert mixed.code == 0, mixed.err
    assert sorted(bases(study.runs())[model].values()) == [1, 1]
    assert fingerprint in bases(study.runs())[model]
    assert sorted([run.spec.seed for run in runs] for runs in study.cells().values()) == [[0], [1]]


def test_content_hashes_are_not_those_of_replaced_weights(base: Path, tmp_path: Path) -> None:
    from capacity.adapters.svd.checkpoint import WeightFolder

    before = WeightFolder(base).digests(tmp_path / "cache")
    replace_weights(base)
    after = WeightFolder(base).digests(tmp_path / "cache")
    assert len({name for name in before if before[name] != after[name]}) == 1
    assert after == WeightFolder(base).digests(None)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(base / "model.safetensors").values())


def test_a_model_whose_weights_are_not_here_has_no_digest(tmp_path):
    """Planning may have fetched the config of a hub model alone."""
    (tmp_path / "config.json").write_text("{}")
    assert base_digest(str(tmp_path)) is None
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert base_digest(str(tmp_path)) is not None
