"""Studies of chosen projections: how their rates are named, and which mixes of projections are refused."""

import json
import subprocess
import sys
from pathlib import Path

import fakes
import pytest

from capacity.errors import DataError, SpecError
from capacity.plan.grid import arm_name, grid_points, planned_runs, result_specs
from capacity.plan.study_file import parse_study, read_study_file
from capacity.runs.study import Study
from capacity.spec.adapters import ProjectionChoice
from capacity.studies.sweep import tune
from capacity_analysis.data.read import read_points
from studies.tools.message_tables import gains_by_style, trained
from tests.test_sweep import Maker, written

HEAD = 'name = "mixed"\n'
RANDOM = "{ budget = 13 }"
CHOSEN = '{ budget = 13, projection = "chosen" }'
OWN = '{ budget = 13, projection = "chosen", projection_by = "own" }'
FEWER = '{ budget = 13, projection = "chosen", projection_bits = 8 }'
TOLD = '{ budget = 13, projection = "random" }'
TWELVE = '{ budget = 13, projection = "chosen", projection_bits = 12 }'
BY_GRPO = '{ budget = 13, projection = "chosen", projection_by = "grpo" }'
NO_BITS = '{ budget = 13, projection = "chosen", projection_bits = 0 }'
PARTS = '{ groups = 13, u = 1, projection = "chosen" }'
TEXT = '{ budget = "13" }'
RANKED = '{ budget = 13, rank = 8, projection = "chosen" }'
BYTES = '{ budget = "26B" }'
BYTES_CHOSEN = '{ budget = "26B", projection = "chosen" }'


def grid(methods: str, sizes: str) -> str:
    return f'[[grids]]\nmodels = ["abacus"]\nmethods = {methods}\nsizes = [{sizes}]\nrates = 0.01\nseeds = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            grid('["sft"]', RANDOM) + grid('["grpo"]', CHOSEN),
            "sft has a random projection and grpo a projection chosen with 12 bits at one size",
        ),
        (
            grid('["sft"]', FEWER) + grid('["grpo"]', f"{CHOSEN}, {RANDOM}"),
            "sft has a projection chosen with 8 bits and grpo a projection chosen with 12 bits or a random projection",
        ),
        (
            grid('["sft", "rft"]', RANDOM) + grid('["grpo"]', OWN),
            "sft has a random projection and grpo a projection chosen by its own gradient with 12 bits",
        ),
        # the same size in other words
        (grid('["sft"]', RANDOM) + grid('["grpo"]', PARTS), "sft has a random projection and grpo a projection chosen"),
        (grid('["sft"]', TEXT) + grid('["grpo"]', RANKED), "sft has a random projection and grpo a projection chosen"),
        (grid('["sft"]', BYTES) + grid('["grpo"]', BYTES_CHOSEN), "sft has a random projection and grpo a projection"),
        (grid('["sft"]', BYTES) + grid('["grpo"]', CHOSEN), "sft has a random projection and grpo a projection chosen"),
    ],
)
def test_methods_without_a_common_projection_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read_study_file(written(tmp_path, HEAD + text))
    assert str(caught.value).endswith("give both the same, or write mixed_projections = true")
    assert read_study_file(written(tmp_path, HEAD + "mixed_projections = true\n" + text)).mixed_projections


@pytest.mark.parametrize(
    "text",
    [
        grid('["sft", "grpo"]', f"{RANDOM}, {CHOSEN}, {FEWER}"),
        grid('["sft", "grpo"]', OWN),
        grid('["sft", "grpo"]', RANDOM) + grid('["grpo"]', CHOSEN),  # the pair is that of the random projection
        grid('["sft"]', RANDOM) + grid('["grpo"]', CHOSEN.replace("13", "28")),  # no pair at all
        grid('["sft"]', RANDOM) + grid('["grpo"]', TOLD),  # one size, said in two ways
        grid('["sft"]', CHOSEN) + grid('["grpo"]', TWELVE),
        grid('["sft"]', CHOSEN) + grid('["grpo"]', BY_GRPO),
        grid('["sft"]', RANDOM) + grid('["grpo"]', NO_BITS),
        grid('["sft"]', '{ adapter = "full" }') + grid('["grpo"]', CHOSEN),
    ],
)
def test_other_studies_are_read(tmp_path: Path, text: str) -> None:
    assert not read_study_file(written(tmp_path, HEAD + text)).mixed_projections


def test_a_model_that_cannot_be_looked_up_is_judged_by_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study file can be read without a network."""

    def offline(*_: object) -> None:
        raise DataError("the hub cannot be reached")

    monkeypatch.setattr("capacity.plan.hub_config.hub_config", offline)

    def study(size: dict[str, object]) -> dict[str, object]:
        own = {"models": ["who/knows"], "rates": 0.01, "seeds": 1}
        grids = [{**own, "methods": ["sft"], "sizes": [{"budget": 13}]}, {**own, "methods": ["grpo"], "sizes": [size]}]
        return {"name": "far", "grids": grids}

    with pytest.raises(SpecError, match="sft has a random projection and grpo a projection chosen with 12 bits"):
        parse_study(study({"budget": 13, "projection": "chosen"}), "far")
    assert parse_study(study({"budget": 13, "projection": "chosen", "projection_bits": 0}), "far").name == "far"


def test_a_chosen_projection_is_tuned_as_an_arm_of_its_own(tmp_path: Path) -> None:
    """Its rate must not replace that of the random projection of the same size."""
    sizes = [{"budget": 13}, {"budget": 13, "projection": "chosen"}]
    raw = {
        "name": "both",
        "tuning": {"rates": [0.001, 0.01], "extend": 0},
        "grids": [{"models": ["abacus"], "methods": ["grpo"], "sizes": sizes, "rates": "tuned", "seeds": [7]}],
    }
    file, study = parse_study(raw, "both"), Study(tmp_path / "out")
    with study.locked():
        tune(file, study, Maker(study, {"grpo": 0.01}))
    arms = json.loads((study.folder / "tuning.json").read_text())
    assert [(arm["adapter"], arm["trained_parameters"]) for arm in arms] == [("tinylora", 13), ("tinylora-chosen", 13)]
    names = [arm_name(point, "grpo") for point in grid_points(file)]
    assert names == ["grpo (abacus-0.9m, tinylora of 13)", "grpo (abacus-0.9m, tinylora-chosen of 13)"]


def test_the_tables_hold_what_the_choice_gains(tmp_path: Path) -> None:
    """Chosen projections answer one more item of four than random ones, and those of rank 2 one less than of rank 8."""
    arms = (
        (None, 8, 13, [1, 0, 0, 0]),
        (8, 8, 13, [1, 1, 0, 0]),
        (8, 2, 13, [1, 0, 0, 0]),
        (None, 8, 28, [1, 1, 1, 0]),
    )
    study = Study(tmp_path / "study")
    with study.locked():
        for method in ("sft", "grpo"):
            for seed in (0, 1):
                for bits, rank, size, answers in arms:
                    spec = fakes.spec(method, seed)
                    choice = None if bits is None else ProjectionChoice(bits=bits)
                    adapter = spec.adapter.model_copy(update={"choice": choice, "rank": rank, "groups": size})
                    fakes.add(study, spec.model_copy(update={"adapter": adapter}), answers, trained_parameters=size)
    tool = Path(__file__).parent.parent / "studies" / "tools" / "message_tables.py"
    done = subprocess.run([sys.executable, tool, study.folder], capture_output=True, text=True, check=True)
    _, *tables = [
        [[cell.strip() for cell in row.split("|")[1:-1]] for row in part.splitlines() if "abacus-0.9m" in row]
        for part in done.stdout.split("### ")
    ]
    gains, choices, styles, pairs, larger = tables
    assert styles == []
    assert [(row[3], row[4], row[-1].partition(" (")[0]) for row in gains if row[2] == "13"] == [
        (method, projection, gain)
        for method in ("sft", "grpo")
        for projection, gain in (("random", ""), ("chosen, 8 bits, rank 2", "+0.0"), ("chosen, 8 bits", "+25.0"))
    ]
    assert [(row[3], row[4], row[5].partition(" (")[0]) for row in choices] == [
        (method, "chosen, 8 bits, rank 2", "−25.0") for method in ("sft", "grpo")
    ]
    assert [(row[1], row[2], row[3]) for row in pairs] == [
        ("13", "random", "grpo − sft"), ("13", "chosen, 8 bits, rank 2", "grpo − sft"),
        ("13", "chosen, 8 bits", "grpo − sft"), ("28", "random", "grpo − sft"),
    ]  # fmt: skip
    assert [(*row[1:4], row[4].partition(" (")[0]) for row in larger] == [
        (method, "13", "28", "−25.0") for method in ("sft", "grpo")
    ]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ('{ budget = 13, projection = "chosen", projection_bits = 17 }', "--projection-bits 17 is outside 0 … 16"),
        ('{ budget = 13, projection = "chosen", projection_bits = -1 }', "--projection-bits -1 is outside 0 … 16"),
        ('{ adapter = "lora-xs", projection = "chosen" }', "adapter lora-xs takes no --projection"),
        ('{ budget = 5000, projection = "chosen" }', "takes no --projection"),
        ("{ budget = 13, projection_bits = 4 }", "--projection-bits goes with --projection chosen"),
    ],
)
def test_a_projection_that_cannot_be_chosen_is_refused(tmp_path: Path, size: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        result_specs(read_study_file(written(tmp_path, HEAD + grid('["grpo"]', size))), {})
    assert "\n" not in str(caught.value)


def test_grids_of_one_tuning_share_its_trials(tmp_path: Path) -> None:
    """Storage dtypes share their rates, and other rates to try are refused."""
    one = '[[grids]]\nmodels = ["abacus"]\nmethods = ["grpo"]\nsizes = [{ budget = 13 }]\nrates = "tuned"\nseeds = 1\n'
    head = HEAD + "[tuning]\nrates = [0.001, 0.01]\nextend = 0\n"
    file = read_study_file(written(tmp_path, head + one + one + 'storage_dtype = "int4"\n'))
    trials = planned_runs(file).trials
    assert [(spec.storage_dtype, spec.training and spec.training.learning_rate) for spec in trials] == [
        ("bf16", 0.001), ("bf16", 0.01),
    ]  # fmt: skip
    other = read_study_file(written(tmp_path, head + one + one + "try_rates = [0.1, 1.0]\n"))
    with pytest.raises(SpecError, match=r"two grids tune grpo \(.*\) with different try_rates: give both the same"):
        planned_runs(other)


def test_the_gain_with_other_demonstrations_is_held_against_the_usual_one(tmp_path: Path) -> None:
    """With 0 style bits the choice gains two items of four, and one with the usual demonstrations."""
    study = Study(tmp_path / "study")
    with study.locked():
        for bits, answers in ((4.0, ([1, 0, 0, 0], [1, 1, 0, 0])), (0.0, ([1, 0, 0, 0], [1, 1, 1, 0]))):
            for seed in (0, 1):
                for choice, correct in zip((None, ProjectionChoice(bits=8)), answers, strict=True):
                    spec = fakes.spec("sft", seed)
                    task = spec.task.model_copy(update={"options": {"style_bits": bits, "style_shift": 4.0}})
                    adapter = spec.adapter.model_copy(update={"choice": choice, "rank": 8})
                    fakes.add(study, spec.model_copy(update={"adapter": adapter, "task": task}), correct)
    cells = trained(read_points(str(study.folder)))
    ((*arm, difference),) = gains_by_style(cells)
    assert arm == ["abacus-0.9m", "worked&style_bits=0&style_shift=4", 13, "sft"]
    assert str(difference).startswith("+25.0 (")
