"""Making a study: what is missing is made, what failed is told, and nothing is printed by the library."""

from collections.abc import Callable, Sequence
from pathlib import Path

import fakes
import pytest
from fakes import FINGERPRINT

from capacity.errors import DataError, RunsFailedError
from capacity.plan import rates
from capacity.plan.grid import shipped_remarks
from capacity.plan.study_file import read_study_file
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies import torchrun
from capacity.studies.executors.local import Local
from capacity.studies.make import Make, Wanted, make_study, missing_runs

SFT, GRPO = fakes.spec("sft"), fakes.spec("grpo")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that tests make up come from the present environment."""
    monkeypatch.setattr("capacity.studies.make.environment", lambda *_: FINGERPRINT)


def wants(*specs: RunSpec, failing: Sequence[RunSpec] = ()) -> Callable[[Study, Make], Wanted]:
    """Makes up all of `specs` but those that fail."""

    def produce(study: Study, _: Make) -> Wanted:
        for spec in missing_runs(study, specs, FINGERPRINT):
            if spec in failing:
                study.add_failure(spec, "the loss is nan", "")
            else:
                fakes.add(study, spec, [1, 0])
        return Wanted(specs, ("rates are fine",))

    return produce


@pytest.mark.usefixtures("here")
def test_a_made_study_has_the_wanted_runs_and_the_diagnoses_of_those_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_study(tmp_path / "study", wants(SFT, GRPO, failing=[GRPO]))
    assert [run.spec for run in made.runs] == [SFT]
    assert [(f.label, f.message) for f in made.failures] == [(GRPO.label, "the loss is nan")]
    assert (made.failed, made.remarks) == (1, ("rates are fine",))
    with pytest.raises(RunsFailedError, match=r"1 of 2 runs failed; the diagnosis of each: capacity runs "):
        made.check()
    assert capsys.readouterr() == ("", "")


def test_runs_of_another_trainer_are_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_loop = FINGERPRINT.model_copy(update={"trainer": "loop"})
    monkeypatch.setattr(
        "capacity.studies.make.environment", lambda name, *_: {"trl": FINGERPRINT, "loop": by_loop}[name]
    )
    make_study(tmp_path / "study", wants(SFT), trainer="trl")
    with pytest.raises(DataError, match=r"1 runs are stale.* \(trainer trl → loop\): .* --allow-mixed"):
        make_study(tmp_path / "study", lambda _study, _make: Wanted((SFT,), ()))
    made = make_study(tmp_path / "study", lambda _study, _make: Wanted((SFT,), ()), allow_mixed=True)
    assert [run.fingerprint.trainer for run in made.runs] == ["trl"]


@pytest.mark.usefixtures("here")
def test_an_old_diagnosis_of_a_run_that_is_complete_is_no_failure(tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    with study.locked():
        fakes.add(study, SFT, [1, 0])
        study.add_failure(SFT, "killed", "")  # as when the folder of the run was copied from another study
    made = make_study(study.folder, wants(SFT))
    assert (made.failed, made.failures) == (0, ())
    made.check()


@pytest.mark.usefixtures("here")
def test_runs_of_another_environment_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    with study.locked():
        fakes.add(study, SFT, [1, 0], FINGERPRINT.model_copy(update={"sources": "other"}))
    with pytest.raises(DataError, match=r"1 runs are stale, made in another environment \(sources\)"):
        make_study(study.folder, wants(SFT, GRPO))
    assert len(study.runs()) == 1


@pytest.mark.usefixtures("here")
def test_the_untrained_model_runs_before_what_is_trained_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted study then knows gains. The models stay in their order, and so do the runs of each."""

    def on(model: str, *methods: str) -> list[RunSpec]:
        return [RunSpec.model_validate({**fakes.raw_spec(m), "model": model}) for m in methods]

    asked = on("abacus-0.2m", "grpo", "sft") + on("abacus-0.9m", "sft", "base") + on("abacus-0.2m", "rft", "base")
    order: list[tuple[str, str]] = []

    def made_up(study: Study, jobs: Sequence[Sequence[RunSpec]], *_: object) -> None:
        for spec in (spec for job in jobs for spec in job):
            order.append((spec.model, spec.method))
            fakes.add(study, spec, [1, 0])

    def produce(_: Study, make: Make) -> Wanted:
        make(asked, "results")
        return Wanted(tuple(asked), ())

    monkeypatch.setattr(Local, "run", lambda _, *arguments: made_up(*arguments))
    made = make_study(tmp_path / "study", produce)
    assert order == [
        *(("abacus-0.2m", method) for method in ("base", "grpo", "sft")),
        *(("abacus-0.9m", method) for method in ("base", "sft")),
        ("abacus-0.2m", "rft"),
    ]
    assert [run.spec for run in made.runs] == asked


TUNE = "tune them with capacity sweep before comparing methods."
FILE = """
name = "some"
[[grids]]
models = ["{model}"]
methods = ["sft", "sft+grpo"]
sizes = [{{ budget = {budget} }}]
seeds = 1
[grids.protocol]
steps = 2
warmup_steps = 0
"""


def study_file(folder: Path, model: str, budget: int) -> Path:
    path = folder / "some.toml"
    path.write_text(FILE.format(model=model, budget=budget))
    return path


def test_a_sweep_says_which_of_its_rates_nobody_tuned(tmp_path: Path) -> None:
    (remark,) = shipped_remarks(read_study_file(study_file(tmp_path, "qwen2.5-0.5b", 100)))
    sft, grpo = "sft (qwen2.5-0.5b, tinylora of 100, ", "grpo (qwen2.5-0.5b, tinylora of 100) 0.0001"
    assert remark.startswith(f"The rates {sft}")
    assert remark.endswith(f", {grpo} are untuned defaults from the range that the paper tried: {TUNE}")


def test_a_sweep_says_which_shipped_rates_lie_at_the_edge_of_those_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"at_edge": row["method"] == "grpo"} for row in rates.shipped()]
    monkeypatch.setattr(rates, "shipped", lambda: rows)
    assert shipped_remarks(read_study_file(study_file(tmp_path, "abacus", 84))) == (
        "The tuned rate of grpo (abacus-0.9m, tinylora of 84) lies at the edge of the rates tried: "
        "a better one may exist.",
    )


def test_divided_runs_refuse_a_study_of_another_environment_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, study = study_file(tmp_path, "abacus", 84), Study(tmp_path / "study")
    with study.locked():
        fakes.add(study, torchrun.specs_of(path)[0], [1, 0])
    assert torchrun.main([str(path), "--out", str(study.folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"capacity: {study.folder}: 1 runs are stale, made in another environment (")
