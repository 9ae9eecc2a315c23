"""The committed baseline belongs to the study that `make guard` runs."""

import json
from pathlib import Path

from capacity.plan.grid import result_specs
from capacity.plan.study_file import read_study_file
from capacity_analysis.check.baseline import read_baseline

ROOT = Path(__file__).parent.parent


def test_the_baseline_holds_the_runs_of_the_guard_study_and_no_others():
    baseline = read_baseline(ROOT / "baseline.json")
    stored = {
        stored.spec_of(run, "baseline.json").identity: stored.trained_parameters
        for stored in baseline.cells
        for run in stored.runs
    }
    planned = {spec.identity for spec in result_specs(read_study_file(ROOT / "studies" / "ci-abacus.toml"), {})}
    assert stored.keys() == planned
    assert set(stored.values()) == {0, 112, 1_792, 217_984}


def test_the_guard_shows_a_curve_that_can_fall():
    baseline = read_baseline(ROOT / "baseline.json")
    base = max(stored.accuracy(0) for stored in baseline.cells if stored.cell.spec.training is None)
    for method in ("sft", "grpo"):
        sizes = [stored for stored in baseline.cells if stored.cell.spec.method == method]
        means = [sum(size.accuracy(seed) for seed in size.seeds) / len(size.seeds) for size in sizes]
        assert means == sorted(means), method
        assert base + 0.02 < means[0] < 0.7, method
        assert means[-1] > 0.85, method


def test_the_baseline_is_written_as_it_was_read():
    path = ROOT / "baseline.json"
    assert json.loads(read_baseline(path).to_text()) == json.loads(path.read_text())
