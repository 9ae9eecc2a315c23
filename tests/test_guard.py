"""The committed baseline belongs to the study that `make guard` runs."""

from pathlib import Path

from capacity.plan.grid import result_specs
from capacity.plan.study_file import read_study_file
from capacity_analysis.check.baseline import read_baseline, spec_of

ROOT = Path(__file__).parent.parent


def test_the_baseline_holds_the_runs_of_the_guard_study_and_no_others():
    baseline = read_baseline(ROOT / "baseline.json")
    stored = {
        spec_of(cell.spec, seed, "baseline.json").identity: cell.trained_parameters
        for cell in baseline.cells
        for seed in cell.seeds
    }
    planned = {spec.identity for spec in result_specs(read_study_file(ROOT / "studies" / "ci-abacus.toml"), {})}
    assert stored.keys() == planned
    assert set(stored.values()) == {0, 112, 1_792, 217_984}


def test_the_guard_shows_a_curve_that_can_fall():
    baseline = read_baseline(ROOT / "baseline.json")
    base = max(cell.accuracy(cell.seeds[0]) for cell in baseline.cells if cell.spec["training"] is None)
    for method in ("sft", "grpo"):
        cells = [cell for cell in baseline.cells if cell.spec["method"] == method]
        means = [sum(cell.accuracy(seed) for seed in cell.seeds) / len(cell.seeds) for cell in cells]
        assert means == sorted(means), method
        assert base + 0.02 < means[0] < 0.7, method
        assert means[-1] > 0.85, method
