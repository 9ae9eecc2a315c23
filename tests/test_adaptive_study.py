"""Studies with an adaptive design: read from a file, made batch by batch, and continued from their folder alone."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest

from capacity.errors import CapacityError, DataError, Interrupted, SpecError
from capacity.plan.adaptive_file import AdaptiveFile, SizeRange, parse_adaptive, read_any_study
from capacity.plan.study_file import parse_study
from capacity.runs import files
from capacity.runs.study import Study
from capacity.spec.adapters import ProjectionChoice, TinyLora
from capacity.spec.run import RunSpec
from capacity.studies.adaptive import LOG, AdaptiveStudy
from capacity.studies.make import Wanted
from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.question import Question

RAW: dict[str, Any] = {
    "name": "s",
    "design": "adaptive",
    "model": "abacus-0.9m",
    "sizes": {"smallest": 1, "largest": 1000, "per_decade": 6},
    "rates": [0.001, 0.01, 0.1],
    "gain": 0.5,
    "half_width": 0.5,
    "most_runs": 120,
    "protocol": {"test_items": 300, "validation_items": 300, "temperatures": [1.0]},
}


def plain(raw: dict[str, Any]) -> AdaptiveFile:
    return parse_adaptive(raw, "study")


def made_up(study: Study, spec: RunSpec, parameters: int) -> None:
    """A run whose accuracy is that of a Hill curve: 50 parameters for grpo, 200 for sft; rate 0.01 is the best."""
    items = spec.evaluation.items
    if spec.training is None:
        accuracy = 0.4
    else:
        middle = {"sft": 200, "grpo": 50}[spec.method]
        accuracy = 0.4 + 0.5 / (1 + (middle / parameters) ** 2) - 0.05 * abs(np.log10(spec.training.learning_rate) + 2)
    rng = np.random.default_rng([spec.seed, parameters, spec.method == "sft", spec.evaluation.split == "test"])
    correct = (rng.random(items) < accuracy).astype(int).tolist()
    fakes.add(study, spec, correct, trained_parameters=parameters)


class Maker:
    """Makes up the runs of a study that are missing; after `until` runs comes Ctrl-C."""

    def __init__(self, study: Study, file: AdaptiveFile, until: int = 10**9) -> None:
        self.study, self.left, self.batches = study, until, list[list[str]]()
        self.sizes = {p.spec("sft", 0, {"sft": 1.0}, validation=False).adapter: p.size for p in file.points()}

    def __call__(self, specs: Sequence[RunSpec], _: str) -> None:
        self.study.write_plan(specs)
        made = []
        for spec in specs:
            if self.study.path_of(spec).is_dir():
                continue
            if not self.left:
                raise Interrupted("interrupted")
            self.left -= 1
            seedless = [a for a in self.sizes if _alike(a, spec)]
            made_up(self.study, spec, self.sizes[seedless[0]].trained_parameters if seedless else 0)
            made.append(spec.label)
        self.batches.append(made)


def _alike(adapter: Any, spec: RunSpec) -> bool:
    one, two = adapter.model_dump(), spec.adapter.model_dump()
    return {**one, "projection_seed": 0} == {**two, "projection_seed": 0}


def made(folder: Path, raw: dict[str, Any], until: int = 10**9, pace: float = 0) -> tuple[AdaptiveStudy, Maker, Wanted]:
    """One call. `pace`: the seconds that each batch takes by its clock, if any run of it is made."""
    file, study = plain(raw), Study(folder)
    maker = Maker(study, file, until)
    adaptive = AdaptiveStudy(file, workers=4, clock=lambda: pace * sum(map(bool, maker.batches)))
    with study.locked():
        return adaptive, maker, adaptive.produce(study, maker)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdaptiveStudy, Wanted]:
    folder = tmp_path_factory.mktemp("whole") / "study"
    adaptive, _, wanted = made(folder, RAW)
    return folder, adaptive, wanted


def test_a_study_ends_when_thresholds_are_as_exact_as_was_asked(whole: tuple[Path, AdaptiveStudy, Wanted]) -> None:
    folder, adaptive, wanted = whole
    assert adaptive.ended.startswith("Each threshold is known to ±0.")
    assert wanted.remarks == (adaptive.ended,)
    found = study_thresholds(read_points(str(folder)), Selection(), Question(gain=0.5), null=0)
    for own in (t for t in found.thresholds if t.answer):
        assert own.threshold.low is not None
        assert own.threshold.high is not None
        assert np.log10(own.threshold.high / own.threshold.low) / 2 <= 0.5
    log = files.read_json(folder / LOG)
    assert log["end"] == {"reached": True, "why": adaptive.ended}
    trained = [spec for spec in wanted.specs if spec.training is not None]
    assert sum(len(batch["runs"]) for batch in log["batches"]) == len(trained)
    for split in ("test", "validation"):
        by_method = [sum(s.method == m and s.evaluation.split == split for s in trained) for m in ("sft", "grpo")]
        assert by_method[0] == by_method[1] > 0
    tested = {spec.training.learning_rate for spec in trained if spec.evaluation.split == "test" and spec.training}
    assert tested == {0.01}


def test_each_seed_of_the_results_has_its_base(whole: tuple[Path, AdaptiveStudy, Wanted]) -> None:
    _, _, wanted = whole
    test = [spec for spec in wanted.specs if spec.evaluation.split == "test"]
    assert {s.seed for s in test if s.training} <= {s.seed for s in test if not s.training}


def test_an_interrupted_study_continues_from_its_folder_alone(
    tmp_path: Path, whole: tuple[Path, AdaptiveStudy, Wanted]
) -> None:
    for until in (0, 7, 20):  # Ctrl-C before the first run, in the trials, and among the results
        with pytest.raises(Interrupted):
            made(tmp_path / "study", RAW, until)
    _, maker, wanted = made(tmp_path / "study", RAW)
    assert [spec.identity for spec in wanted.specs] == [spec.identity for spec in whole[2].specs]
    assert sum(map(len, maker.batches)) == len(wanted.specs) - 27
    logs = [(folder / LOG).read_bytes() for folder in (tmp_path / "study", whole[0])]
    assert logs[0] == logs[1]


def test_a_study_stops_at_its_largest_number_of_runs(tmp_path: Path) -> None:
    adaptive, _, wanted = made(tmp_path / "study", {**RAW, "half_width": 0.01, "most_runs": 44})
    assert sum(spec.training is not None for spec in wanted.specs) <= 44
    assert adaptive.ended == "The next batch would exceed 44 runs."
    assert files.read_json(tmp_path / "study" / LOG)["end"]["reached"] is False


def test_a_target_out_of_range_is_shown_and_said(tmp_path: Path) -> None:
    raw = {**RAW, "target": 0.93, "gain": None, "half_width": 0.5}
    adaptive, _, _ = made(tmp_path / "study", raw)
    assert "sft beyond the largest size, grpo beyond the largest size" in adaptive.ended


def test_a_ratio_is_decided(tmp_path: Path) -> None:
    raw = {name: value for name, value in RAW.items() if name != "half_width"}
    adaptive, _, _ = made(tmp_path / "study", {**raw, "decide": 100})
    assert adaptive.ended == "The ratio of thresholds is below 100."


def test_hours_end_a_study_before_the_next_batch_and_count_over_all_calls(tmp_path: Path) -> None:
    adaptive, maker, wanted = made(tmp_path / "study", {**RAW, "hours": 1.0}, pace=1000)
    assert adaptive.ended == "The next batch would end after 1 hours."
    assert len(maker.batches) == 3  # the untrained model, and two batches; a third would end at 4,000 s
    spent = {"seconds": 3000, "batch_seconds": 1000}
    assert files.read_json(tmp_path / "study" / LOG)["spent"] == spent
    again, maker, same = made(tmp_path / "study", {**RAW, "hours": 1.0}, pace=1000)
    assert (again.ended, same.specs) == (adaptive.ended, wanted.specs)
    assert sum(map(len, maker.batches)) == 0
    assert files.read_json(tmp_path / "study" / LOG)["spent"] == spent
    _, maker, _ = made(tmp_path / "study", {**RAW, "hours": 4000 / 3600}, pace=1000)
    assert sum(map(bool, maker.batches)) == 1


def test_a_log_that_says_nothing_of_the_time_is_read_and_one_that_says_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "capacity-study.json").write_text('{"format": "capacity study", "version": 1}')
    for text, refused in (('{"batches": [], "end": null}', False), ('{"spent": {"seconds": -1}}', True), ("[]", True)):
        (tmp_path / "study" / LOG).write_text(text)
        with pytest.raises(DataError if refused else Interrupted):
            made(tmp_path / "study", RAW, until=0)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no sizes": ({"sizes": None}, "sizes"),
    "no range": ({"sizes": {"smallest": 13, "largest": 13}}, "from 13 to 13 there is no range: raise largest"),
    "too few sizes": ({"sizes": {"smallest": 1, "largest": 3}}, "3 different sizes from 1 to 3, and a curve needs 5"),
    "above the model": ({"sizes": {"largest": 10**9}}, "sizes: a budget of .* is above the model"),
    "a target in percent": ({"target": 85}, "target is 85"),
    "target and gain": ({"target": 0.8}, "give target, or gain, not both"),
    "width and ratio": ({"decide": 10}, "give half_width, or decide, not both"),
    "a ratio of one method": ({"decide": 10, "half_width": None, "methods": ["grpo"]}, "name both in methods"),
    "too few runs": ({"most_runs": 10}, "most_runs is 10: 2 methods need at least 38"),
    "a control": ({"methods": ["sft", "random-reward"]}, "random-reward has no learning rate of its own"),
    "falling rates": ({"rates": [0.1, 0.01]}, "rising"),
    "an unknown model": ({"model": "abacus-9m"}, "abacus-9m"),
    "an unknown field": ({"grids": []}, "grids"),
    "a budget": ({"sizes": {"largest": 100, "budget": 13}}, "a range has no budget: give smallest and largest alone"),
    "bits of no choice": ({"sizes": {"largest": 100, "projection_bits": 4}}, "goes with --projection chosen: add that"),
    "no shipped rate": ({"rates": "shipped", "sizes": {"smallest": 1, "largest": 500_000}}, "rates: none is shipped"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_an_adaptive_file_is_one_line(change: dict[str, Any], said: str) -> None:
    raw = {name: value for name, value in {**RAW, **change}.items() if value is not None}
    with pytest.raises(CapacityError, match=said) as raised:
        plain(raw)
    assert str(raised.value).startswith("study: ")
    assert "\n" not in str(raised.value)


def test_commands_that_need_runs_beforehand_refuse_an_adaptive_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="its design is adaptive, so its runs are not known beforehand"):
        parse_study(RAW, "study")
    path = tmp_path / "study.toml"
    path.write_text(
        'name = "s"\ndesign = "adaptive"\nmodel = "abacus-0.2m"\nsizes = { smallest = 13, largest = 112 }\n'
    )
    assert isinstance(read_any_study(path), AdaptiveFile)


def test_the_candidates_are_even_on_a_logarithmic_scale_with_both_ends() -> None:
    assert [c.budget for c in SizeRange(smallest=1, largest=100, per_decade=2).choices] == [1, 3, 10, 32, 100]
    assert [c.budget for c in SizeRange(smallest=2, largest=30, per_decade=1).choices] == [2, 20, 30]


def test_the_candidates_share_every_other_option_of_a_size() -> None:
    chosen = {**RAW["sizes"], "projection": "chosen", "projection_bits": 4, "rank": 8}
    study = plain({**RAW, "sizes": chosen})
    for point in study.points():
        adapter = point.spec("sft", 0, {"sft": 0.01}, validation=False).adapter
        assert isinstance(adapter, TinyLora)
        assert adapter.rank == 8
        assert adapter.choice == ProjectionChoice(bits=4, by="grpo")


def test_the_file_on_the_page_can_be_planned() -> None:
    page = (Path(__file__).parents[1] / "docs" / "designs.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(plain(tomllib.loads(block)).points()) >= 5
