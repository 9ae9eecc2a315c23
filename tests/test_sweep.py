"""Study files: what is refused, what they expand to, and how rates are tuned."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from capacity.errors import DataError, SpecError
from capacity.plan.grid import extended, grid_points, result_specs
from capacity.plan.rates import best_rate
from capacity.plan.study_file import read_study_file
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.sweep import sweep
from tests import fakes

ONE = """
name = "one"
[[grids]]
models = ["abacus"]
methods = ["sft", "grpo"]
sizes = [{ budget = 13 }, { adapter = "full" }]
rates = 0.001
seeds = 2
"""
TUNED = """
name = "tuned"
[tuning]
rates = [0.001, 0.01]
extend = 1
[[grids]]
models = ["abacus"]
methods = ["sft", "grpo", "random-reward", "sft+grpo"]
sizes = [{ budget = 13 }]
rates = "tuned"
seeds = [7]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_grid_is_the_product_of_its_lists_and_the_base_at_every_temperature(tmp_path: Path) -> None:
    specs = result_specs(read_study_file(written(tmp_path, ONE)), {})
    trained = [s for s in specs if s.method != "base"]
    assert sorted((s.method, s.adapter.kind, s.seed) for s in trained) == sorted(
        (m, a, seed) for m in ("sft", "grpo") for a in ("tinylora", "full") for seed in (0, 1)
    )
    bases = [(s.evaluation.split, s.evaluation.temperature) for s in specs if s.method == "base"]
    # At the temperature of the trained runs each seed has draws of its own, so the base has a run of each seed.
    temperatures = (0.0, 0.25, 0.5, 0.75, 1.0)
    expected = [*(("test", t) for t in (*temperatures, 1.0)), *(("validation", t) for t in temperatures)]
    assert sorted(bases) == expected
    assert {s.model for s in specs} == {"abacus-0.9m"}


def test_methods_that_see_no_demonstrations_run_once_for_all_of_them(tmp_path: Path) -> None:
    tasks = 'tasks = ["abacus?style_bits=0", "abacus?style_bits=8"]\nmethods'
    specs = result_specs(read_study_file(written(tmp_path, ONE.replace("methods", tasks))), {})
    assert len([s for s in specs if s.method == "sft"]) == 2 * len([s for s in specs if s.method == "grpo"]) == 8


def test_protocol_of_a_grid_reaches_training_and_evaluation(tmp_path: Path) -> None:
    text = ONE + "protocol = { steps = 5, warmup_steps = 1, test_items = 64, temperatures = [0.5] }\n"
    specs = result_specs(read_study_file(written(tmp_path, text)), {})
    assert {s.training.steps for s in specs if s.training} == {5}
    assert {s.training.prompts_per_step for s in specs if s.training} == {12}
    assert {s.evaluation.items for s in specs if s.evaluation.split == "test"} == {64}
    # The temperature at which trained runs are evaluated is always among those of the base.
    assert {s.evaluation.temperature for s in specs if s.method == "base"} == {0.5, 1.0}


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ('"sft", "grpo"', '"sft", "gpro"', "did you mean grpo"),
        ('["abacus"]', '["abakus"]', "did you mean abacus"),
        ("budget = 13", "budget = 0", "below one parameter"),
        ("budget = 13", 'budget = "13X"', "unknown unit 'X'"),
        ("rates = 0.001", "rates = [0.001, 0.01]", "several rates on the test split"),
        ("rates = 0.001", 'rates = "tuned"', "needs a \\[tuning\\] table"),
        ("rates = 0.001", "rates = -0.1", "grids.0.rates: -0.1 is no learning rate: .*numbers above 0"),
        ("rates = 0.001", "rates = [0.1, 0.0]", "grids.0.rates: 0.0 is no learning rate"),
        ("rates = 0.001", "rates = nan", "grids.0.rates: nan is no learning rate"),
        ("rates = 0.001", "rates = true", "grids.0.rates: True is no learning rate"),
        ("rates = 0.001", "rates = { sft = 0.1, grpo = -1 }", "grids.0.rates: -1 is no learning rate"),
        ("rates = 0.001", "rates = { stf = 0.1 }", "unknown method 'stf': did you mean sft"),
        ("rates = 0.001", "rates = []", r"grids.0.rates: \[\] is no learning rate"),
        ("rates = 0.001", 'rates = "tunned"', "did you mean tuned"),
        ("rates = 0.001", 'rates = [0.1, 0.1]\nsplit = "validation"', "0.1 stands there twice"),
        ("rates = 0.001", "try_rates = [0.1, 1.0]", "try_rates belongs to"),
        ("seeds = 2", "seeds = 0", "0 seeds: a number of seeds lies between 1 and 10,000"),
        ("seeds = 2", "seeds = 1000000000", "1000000000 seeds: a number of seeds"),
        ("seeds = 2", "seeds = []", "seeds"),
        ("seeds = 2", "seeds = [0, 0]", "grids.0.seeds: 0 stands there twice"),
        ("seeds = 2", "seeds = [4294967296]", "grids.0.seeds.0 is 4294967296: it must be below 4,294,967,296"),
        ("seeds = 2", 'seeds = 2\ntasks = ["abacus", "abacus"]', "abacus stands there twice"),
        ('["abacus"]', '["abacus", "abacus-0.9m"]', "abacus-0.9m stands there twice"),
        ('"sft", "grpo"', '"sft", "sft"', "sft stands there twice"),
        ("{ budget = 13 }", "{ budget = 13 }, { budget = 13 }", "{'budget': 13} stands there twice"),
        ("seeds = 2", "seeds = 2\nprotocol = { temperatures = [0.5, 0.5] }", "0.5 stands there twice"),
        ("seeds = 2", "seeds = 2\nprotocol = { steps = 4 }", "8 warmup_steps in 4 steps of sft"),
        ("seeds = 2", "seeds = 2\nprotocol = { steps = 4, warmup_steps = 5 }", "5 warmup_steps in 4 steps"),
        ("seeds = 2", "seed = 2", "grids.0: unknown field 'seed': did you mean seeds"),
        ('name = "one"', 'name = "a/b"', "name: 'a/b' cannot name the folder of a study"),
        ('name = "one"', 'name = ".."', "name: '..' cannot name the folder of a study"),
        ('name = "one"', 'name = "."', "name: '.' cannot name the folder of a study"),
        ('name = "one"', 'name = ".hidden"', "with no dot or dash first"),
        ('name = "one"', 'name = "-rf"', "with no dot or dash first"),
        ('name = "one"', 'name = "one\\n"', "cannot name the folder of a study"),
        ('name = "one"', 'name = ""', "cannot name the folder of a study"),
        ('name = "one"', 'name = ', "not TOML"),
        ('methods = ["sft", "grpo"]', "", "methods and sizes go together"),
        ("seeds = 2", 'seeds = 2\ntasks = ["abacus?style_bits=3"]', "style_bits 3 is out of range"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_study_file_is_one_line_that_names_it(
    tmp_path: Path, changed: str, to: str, message: str
) -> None:
    assert changed in ONE
    path = written(tmp_path, ONE.replace(changed, to))
    with pytest.raises((SpecError, DataError), match=message) as caught:
        result_specs(read_study_file(path), {})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_warm_up_has_room_in_each_half_of_a_run_of_two_phases(tmp_path: Path) -> None:
    both = ONE.replace('"sft", "grpo"', '"sft+grpo"')
    assert result_specs(read_study_file(written(tmp_path, both + "protocol = { steps = 16 }\n")), {})
    with pytest.raises(SpecError, match=r"8 warmup_steps in 7 steps of sft\+grpo"):
        read_study_file(written(tmp_path, both + "protocol = { steps = 15 }\n"))
    with pytest.raises(SpecError, match=r"1 steps: sft\+grpo takes at least one step in each of its phases"):
        read_study_file(written(tmp_path, both + "protocol = { steps = 1, warmup_steps = 0 }\n"))


def test_deeply_nested_and_non_ascii_study_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nested too deeply"):
        read_study_file(written(tmp_path, "name = " + "[" * 100_000))
    path = tmp_path / "study.toml"
    path.write_text(ONE.replace("[[grids]]", 'question = "Größe?"\n[[grids]]'), encoding="utf-8")
    code = "import sys; from pathlib import Path; from capacity.plan.study_file import read_study_file"
    code += "; assert ascii(read_study_file(Path(sys.argv[1])).question) == ascii('Gr\\xf6\\xdfe?')"
    posix = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=posix, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_size_that_a_model_does_not_have_is_refused(tmp_path: Path) -> None:
    file = read_study_file(written(tmp_path, ONE.replace("budget = 13", "u = 99")))
    with pytest.raises(SpecError, match="grid 1: "):
        list(grid_points(file))


def test_tuning_seeds_are_not_those_of_the_results(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="overlap"):
        read_study_file(written(tmp_path, TUNED.replace("seeds = [7]", "seeds = [1000]")))


def test_grid_of_rates_grows_by_its_own_ratio_only_where_a_best_rate_lies_at_an_end() -> None:
    assert extended((0.001, 0.01), [0, 1]) == (0.0001, 0.001, 0.01, 0.1)
    assert extended((0.001, 0.01, 0.1), [1]) == (0.001, 0.01, 0.1)
    assert extended((0.0032, 0.01, 0.032), [2]) == (0.0032, 0.01, 0.032, 0.1)


class Maker:
    """Adds runs to a study; on validation their accuracy is a function of method and rate, on test it is 0."""

    def __init__(self, study: Study, peaks: dict[str, float], failing: Sequence[float] = ()) -> None:
        self.study, self.peaks, self.failing = study, peaks, failing
        self.calls: list[tuple[str, int]] = []

    def __call__(self, specs: Sequence[RunSpec], what: str) -> None:
        missing = [s for s in specs if not self.study.path_of(s).is_dir()]
        self.calls.append((what, len(missing)))
        for spec in missing:
            rate = spec.training.learning_rate if spec.training else None
            if rate in self.failing and spec.evaluation.split == "validation":
                self.study.add_failure(spec, "diverged", "")
                continue
            best = spec.evaluation.split == "validation" and rate == self.peaks.get(spec.method)
            fakes.add(self.study, spec, [1, 1] if best else [0, 1])


def tuned_rates(study: Study) -> dict[str, tuple[float | None, bool, int]]:
    arms = json.loads((study.folder / "tuning.json").read_text())
    return {a["method"]: (a["learning_rate"], a["at_edge"], len(a["trials"])) for a in arms}


def test_rates_are_chosen_on_validation_with_equal_trials_and_used_with_fresh_seeds(tmp_path: Path) -> None:
    study, file = Study(tmp_path / "out"), read_study_file(written(tmp_path, TUNED))
    with study.locked():
        make = Maker(study, {"sft": 0.1, "grpo": 0.01})
        wanted = sweep(file, study, make)
    # sft's best lay beyond the grid: both methods got one rate more there, and grpo's lies inside now.
    assert tuned_rates(study) == {"sft": (0.1, True, 4), "grpo": (0.01, False, 4)}
    (remark,) = wanted.remarks
    assert remark.startswith("The tuned rate of sft (abacus-0.9m, tinylora of 13, worked")
    assert remark.endswith(") lies at the edge of the rates tried: a better one may exist.")
    used = {s.method: (s.training.learning_rate, s.seed) for s in wanted.specs if s.training}
    assert used == {"sft": (0.1, 7), "grpo": (0.01, 7), "random-reward": (0.01, 7), "sft+grpo": (0.01, 7)}
    (both,) = [s for s in wanted.specs if s.method == "sft+grpo"]
    assert both.warm_start is not None
    assert both.warm_start.learning_rate == 0.1
    assert all(s.evaluation.split == "test" for s in wanted.specs if s.training)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([0.1, 0.3, 0.2], 1),
        ([0.3, 0.3, 0.3, 0.3, 0.1], 1),
        ([0.3, None, 0.3, 0.3, 0.3], 3),
        ([0.3, 0.1, 0.3, 0.3], 2),
        ([0.3, 0.1, 0.3], 0),
        ([None, None], None),
        ([], None),
    ],
)
def test_of_equal_rates_the_middle_one_is_best(accuracies: list[float | None], best: int | None) -> None:
    assert best_rate(accuracies) == best


def test_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    study, file = Study(tmp_path / "out"), read_study_file(written(tmp_path, TUNED))
    with study.locked():
        sweep(file, study, Maker(study, {"sft": 0.01, "grpo": 0.001}))
        again = Maker(study, {})
        sweep(file, study, again)
    assert {count for _, count in again.calls} == {0}


def test_arm_that_fails_at_every_rate_is_left_out_and_a_rate_that_fails_never_wins(tmp_path: Path) -> None:
    study, file = Study(tmp_path / "out"), read_study_file(written(tmp_path, TUNED))
    with study.locked():
        wanted = sweep(file, study, Maker(study, {"sft": 0.01, "grpo": 0.01}, failing=[0.001, 0.01, 0.1, 0.0001]))
        assert [s for s in wanted.specs if s.method != "base"] == []
        assert wanted.remarks[1] == "grpo (abacus-0.9m, tinylora of 13) failed at every rate and has no results."
        assert {rate for rate, _, _ in tuned_rates(study).values()} == {None}
    other = Study(tmp_path / "other")
    with other.locked():
        sweep(file, other, Maker(other, {"sft": 0.01, "grpo": 0.01}, failing=[0.01]))
        assert all(rate != 0.01 for rate, _, _ in tuned_rates(other).values())
