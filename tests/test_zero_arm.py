"""The adapter of zeros as an arm of a study: planned, made and shown as a control, and judged by nothing."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fakes
import pytest
from engines import PlainEngine
from pydantic import ValidationError
from sizes import chosen, within
from small import SMALLEST, TASK, small_spec

from capacity.errors import SpecError
from capacity.library.answers.comparison import comparison_answer, sizes_answer
from capacity.library.bundle import bundle
from capacity.library.chosen_run import chosen_run
from capacity.plan.defaults import default_size
from capacity.plan.grid import planned_runs, result_specs
from capacity.plan.sampling import with_rollouts
from capacity.plan.sizes import SizeChoice
from capacity.plan.specs import compare_specs, parse_methods, zero_specs
from capacity.plan.study_file import parse_study
from capacity.plan.together import jobs
from capacity.runs.points import points as rows_of
from capacity.runs.points import to_csv
from capacity.runs.study import Run, Study
from capacity.sampling.vllm import start
from capacity.spec.adapters import TinyLora
from capacity.spec.parts import RolloutSpec
from capacity.spec.run import RunSpec
from capacity.training import run as training_run
from capacity.training.run import RunRecord, execute
from capacity_analysis.bits.cells import measured_cells
from capacity_analysis.check.judge import check_study
from capacity_analysis.check.snapshot import snapshot
from capacity_analysis.compare.comparison import Comparison, comparisons
from capacity_analysis.compare.costs import costs_of
from capacity_analysis.compare.result import comparison_json
from capacity_analysis.compare.sizes_table import size_cells
from capacity_analysis.compare.verdicts import verdict, verdicts
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, study_points
from capacity_reports.explorer.runs import runs as explored_runs
from capacity_reports.sections.comparison import comparison_blocks, size_table
from capacity_reports.sources import read_source

RATES = {"sft": 0.1, "grpo": 0.1}


def planned(methods: str, draws: Any = "seed", seeds: int = 3) -> list[RunSpec]:
    size = within(SMALLEST, "13")
    return compare_specs(SMALLEST, TASK, parse_methods(methods), size, seeds, "bf16", RATES, draws=draws)  # type: ignore[arg-type]


def test_a_comparison_names_it_beside_what_it_trains() -> None:
    zeros = [spec for spec in planned("sft,zero") if spec.method == "zero"]
    trained = [spec for spec in planned("sft,zero") if spec.method == "sft"]
    assert [spec.training for spec in zeros] == [None] * 3
    for field in ("adapter", "storage_dtype", "evaluation", "seed", "model"):
        assert [getattr(spec, field) for spec in zeros] == [getattr(spec, field) for spec in trained]
    without = [spec.identity for spec in planned("sft")]
    assert [spec.identity for spec in planned("sft,zero") if spec.method != "zero"] == without


def test_one_run_is_enough_where_seeds_draw_the_same_answers() -> None:
    assert [spec.seed for spec in planned("sft,zero", draws="common") if spec.method == "zero"] == [0]


def test_zeros_alone_are_no_comparison() -> None:
    with pytest.raises(SpecError, match="'zero' names no method to train: choose from sft"):
        parse_methods("zero")


def test_an_adapter_of_zeros_has_an_adapter_and_no_training() -> None:
    raw = fakes.raw_spec("zero")
    training = fakes.raw_spec("grpo")["training"]
    for changes in ({"adapter": {"kind": "none"}}, {"training": training}):
        with pytest.raises(ValidationError, match='method "zero" needs an adapter and has no training'):
            RunSpec.model_validate({**raw, **changes})


@pytest.mark.parametrize("rates", ["shipped", "tuned", [0.1]])
def test_a_study_file_names_it_and_needs_no_rate_for_it(rates: Any) -> None:
    grid = {"models": [SMALLEST], "methods": ["sft", "zero"], "sizes": [{"budget": 13}], "rates": rates, "seeds": 2}
    study = parse_study({"name": "s", "tuning": {"rates": [0.1, 0.2]}, "grids": [grid]}, "s.toml")
    zeros = [spec for spec in result_specs(study, {}) if spec.method == "zero"]
    assert [spec.seed for spec in zeros] == [0, 1]
    assert planned_runs(study).at_tuned_rates == (2 if rates == "tuned" else 0)
    with pytest.raises(SpecError, match="unknown method 'zeros'"):
        parse_study({"name": "s", "grids": [{**grid, "methods": ["zeros"]}]}, "s.toml")


def test_a_rate_for_it_is_refused() -> None:
    grid = {"models": [SMALLEST], "methods": ["sft", "zero"], "sizes": [{"budget": 13}], "rates": {"zero": 0.1}}
    with pytest.raises(SpecError, match="unknown method 'zero'"):
        parse_study({"name": "s", "grids": [grid]}, "s.toml")


def answers(record: RunRecord) -> list[Any]:
    return [(outcome.item, outcome.completions, outcome.correct) for outcome in record.outcomes]


@pytest.mark.parametrize("budget", ["100", "full"])
def test_its_run_answers_as_the_base_and_leaves_no_update(budget: str) -> None:
    base = execute(small_spec("base", model=SMALLEST), "cpu")
    zero = execute(small_spec("zero", budget, model=SMALLEST), "cpu")
    assert answers(zero) == answers(base)
    assert (zero.result.trained_parameters, zero.result.update_bytes, zero.artifact) == (0, 0, None)
    assert list(zero.steps) == []


def test_a_chosen_projection_is_not_chosen_for_zeros() -> None:
    """Zeros are the same update by every projection, so no gradient is measured."""
    size = default_size(SMALLEST, SizeChoice(budget=4), "bf16")
    (spec,) = zero_specs(SMALLEST, TASK, size, "bf16", seeds=[0])
    assert isinstance(spec.adapter, TinyLora)
    assert spec.adapter.choice is not None
    few = spec.evaluation.model_copy(update={"items": 16})
    zero = execute(spec.model_copy(update={"evaluation": few}), "cpu")
    assert answers(zero) == answers(execute(small_spec("base", model=SMALLEST), "cpu"))
    assert (zero.result.choice, zero.result.preparation_flops) == (None, 0)


def test_kinds_that_do_not_start_at_zero_are_filled_with_zeros() -> None:
    spec = small_spec("zero", model=SMALLEST)
    base = answers(execute(small_spec("base", model=SMALLEST), "cpu"))
    for adapter in (chosen(SMALLEST, "vb-lora"), chosen(SMALLEST, "uni-lora", length=500)):
        filled = RunSpec.model_validate({**spec.model_dump(), "adapter": adapter.adapter(0).model_dump()})
        assert answers(execute(filled, "cpu")) == base


def test_it_passes_through_the_adapter_and_never_with_runs_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [small_spec(method, model=SMALLEST) for method in ("base", "zero")]
    assert jobs(specs, None, None) == [(specs[0],), (specs[1],)]
    seen: list[Any] = []
    evaluate = training_run.evaluate

    def watched(adapted: Any, *args: Any, **options: Any) -> Any:
        seen.append(adapted)
        return evaluate(adapted, *args, **options)

    monkeypatch.setattr(training_run, "evaluate", watched)
    execute(specs[1], "cpu")
    (adapted,) = seen
    assert adapted.trained_parameters > 0
    assert not adapted.vector().any()


def test_an_engine_is_given_an_adapter_of_zeros(loaded_smallest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recording(PlainEngine):
        def generate(self, requests: Any, **options: Any) -> Any:
            asked.append({request.adapter for request in requests})
            return super().generate(requests, **options)

    asked: list[set[str | None]] = []
    engine = Recording(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    monkeypatch.setattr(start, "_engine", lambda *_: engine)
    record = execute(with_rollouts(small_spec("zero", model=SMALLEST), RolloutSpec()), "cpu")
    assert engine.loads == 1
    assert all(not tensor.any() for name, tensor in engine.last.items() if "lora_B" in name)
    (name,) = asked[-1]
    assert name is not None
    assert name.startswith("update-")
    assert record.result.engine == "vllm 0.32.0"


@pytest.fixture
def points(tmp_path: Path) -> Points:
    """Two seeds of everything; the adapter of zeros loses one item of eight in each."""
    runs = made(tmp_path)
    return study_points(tmp_path / "study", runs)


ENDS = "−12.5 points (−44.9 to +19.9); noise floor: 2 of 16 items differ."
RIGHT = {"base": [1, 1, 0, 0, 0, 0, 0, 0], "zero": [1, 0, 0, 0, 0, 0, 0, 0]}
SFT, GRPO = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]


def made(folder: Path) -> list[Run]:
    study = fakes.study_in(folder)
    runs = []
    for method, right in {**RIGHT, "sft": SFT, "grpo": GRPO}.items():
        runs += [fakes.add(study, fakes.spec(method, seed, len(right)), right) for seed in range(2)]
    return runs


def the_comparison(points: Points) -> Comparison:
    (found,) = comparisons(points)
    return found


def test_a_comparison_shows_the_difference_to_the_base_with_its_noise_floor(points: Points) -> None:
    found = the_comparison(points)
    assert [compared.name for compared in found.cells] == ["sft", "grpo"]
    assert found.zero is not None
    assert found.zero.over_base is not None
    assert found.zero.over_base.value == pytest.approx(-1 / 8)
    assert (found.zero.changed, found.zero.answered) == (2, 16)
    assert found.zero.sentence == "Adapter of zeros minus base: " + ENDS


def test_a_lost_run_of_it_is_incomplete_at_its_size_alone(points: Points) -> None:
    lost = fakes.spec("zero", 2, len(SFT))
    raw = lost.model_dump()
    elsewhere = RunSpec.model_validate({**raw, "adapter": {**raw["adapter"], "groups": 7}})
    (found,) = comparisons(points, [lost, elsewhere])
    assert found.incomplete == {"zero": 1}
    assert "1 zero run gave no result and is left out" in verdict(found).sentence


def test_lost_runs_of_the_base_are_incomplete_at_any_temperature_on_the_reported_items(points: Points) -> None:
    count = len(SFT)
    lost = [fakes.spec("base", 2, count), fakes.spec("base", 0, count, temperature=0.5)]
    others = [fakes.spec("base", 0, count, split="validation"), fakes.spec("base", 2, count + 1)]
    (found,) = comparisons(points, [*lost, *others])
    assert found.incomplete == {"base": 2}
    assert "2 base runs gave no result and are left out" in verdict(found).sentence
    # One base serves all sizes.
    larger = replace(found, cells=tuple(replace(c, cell=replace(c.cell, trained_parameters=14)) for c in found.cells))
    (both,) = verdicts([found, larger])
    assert "2 base runs gave no result and are left out" in both.sentence


def test_no_claim_and_no_gain_rests_on_it(points: Points, tmp_path: Path) -> None:
    without = study_points(tmp_path / "study", [run for run in made(tmp_path / "other") if run.spec.method != "zero"])
    assert verdict(the_comparison(points)).sentence == verdict(the_comparison(without)).sentence
    assert [c.gain for c in the_comparison(points).cells] == [c.gain for c in the_comparison(without).cells]
    assert [name["method"] for name in measured_cells(points).shown] == ["base", "sft", "grpo"]


def test_answer_report_and_json_show_it_as_a_control(points: Points, tmp_path: Path) -> None:
    found = the_comparison(points)
    _, table = comparison_answer(found)
    row = next(row for row in table.rows if row[0] == "zero (control)")  # type: ignore[union-attr]
    assert row[1] == pytest.approx(1 / 8)
    assert row[4] == pytest.approx(-1 / 8)
    assert found.zero is not None
    assert found.zero.sentence in table.note  # type: ignore[union-attr]
    measured = comparison_blocks([found])[0]
    assert [row[0] for row in measured.rows] == ["base", "zero (control)", "sft", "grpo"]  # type: ignore[union-attr]
    told = comparison_json(found, costs_of(made(tmp_path / "again")))["zero"]
    assert told["over_base"]["estimate"] == pytest.approx(-1 / 8)
    assert (told["changed_items"], told["answered_items"]) == (2, 16)
    assert json.dumps(told)


def test_the_table_of_points_keeps_it_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(to_csv(rows_of("study", made(tmp_path))))
    read = read_points(str(path))
    zero = read.frame[read.frame["method"] == "zero"]
    assert zero["trained_parameters"].tolist() == [0, 0]
    assert zero["adapter"].tolist() == ["tinylora"] * 2
    found = [the_comparison(points).zero for points in (read, study_points(tmp_path, made(tmp_path / "again")))]
    assert [zero and zero.sentence for zero in found] == ["Adapter of zeros minus base: " + ENDS] * 2


def test_the_most_accurate_update_is_a_trained_one(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    runs = [
        fakes.add(study, fakes.spec("zero", 0, 4), [1, 1, 1, 1]),
        fakes.add(study, fakes.spec("sft", 0, 4), [1, 0, 0, 0]),
    ]
    cells = size_cells(study_points(tmp_path, runs))
    text, table = sizes_answer(cells, 2, 0)
    assert "most accurate is sft at 13 parameters" in str(text)
    assert [row[1] for row in table.rows] == ["zero (control)", "sft"]  # type: ignore[union-attr]
    assert [row[1] for row in size_table(cells).rows] == ["zero (control)", "sft"]


def test_the_table_of_a_page_has_trained_runs_first(tmp_path: Path) -> None:
    made(tmp_path)
    found = explored_runs(read_source(str(tmp_path / "study")))
    methods = [row[[column["key"] for column in found["columns"]].index("method")] for row in found["rows"]]
    assert set(methods[:4]) == {"sft", "grpo"}
    assert set(methods[4:]) == {"base", "zero"}


def test_no_choice_of_trained_runs_takes_it(tmp_path: Path) -> None:
    study = fakes.study_in(tmp_path)
    fakes.add(study, fakes.spec("zero", 0, 4), [1, 1, 1, 1])
    for choose in (partial(chosen_run, best=True), partial(bundle, out=tmp_path / "all.safetensors")):
        with pytest.raises(SpecError, match="no trained run is meant"):
            choose(study.folder)
    sft = fakes.add(study, fakes.spec("sft", 0, 4), [1, 0, 0, 0])
    assert chosen_run(study.folder, best=True).run.spec == sft.spec


def test_a_check_does_not_judge_it(tmp_path: Path) -> None:
    runs = made(tmp_path)
    study = Study(tmp_path / "study")
    with study.locked():
        study.write_plan([run.spec for run in runs])
    found = check_study(snapshot(study), snapshot(study), margin=0.02)
    assert [base.name for base in found.bases] == ["base T=1"]
    assert "Controls are not judged: zero." in found.remarks
