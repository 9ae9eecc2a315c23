"""`capacity threshold --study`: a study file is run or continued, and the question of thresholds is answered of it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from in_process import capacity
from test_adaptive_study import Maker

from capacity.plan.adaptive_file import AdaptiveFile, asked_of, read_any_study
from capacity.runs.study import Study
from capacity.spec.run import RunSpec

PROTOCOL = "{ steps = 2, warmup_steps = 0, test_items = 300, validation_items = 300, temperatures = [1.0] }"
ADAPTIVE = f"""
name = "chosen"
design = "adaptive"
model = "abacus-0.9m"
sizes = {{ smallest = 1, largest = 1000, per_decade = 6 }}
rates = [0.001, 0.01, 0.1]
gain = 0.5
half_width = 0.5
most_runs = 120
protocol = {PROTOCOL}
"""
GRID = f"""
name = "all"
[[grids]]
models = ["abacus-0.9m"]
methods = ["sft", "grpo"]
sizes = [{{ budget = 1 }}, {{ budget = 10 }}, {{ budget = 100 }}, {{ budget = 1000 }}]
rates = 0.01
seeds = 2
protocol = {PROTOCOL}
"""
CANDIDATES = AdaptiveFile.model_validate(
    {"name": "s", "design": "adaptive", "model": "abacus-0.9m", "sizes": {"largest": 1000, "per_decade": 6}}
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the runs that were made, in an environment where runs are made up."""
    found: list[str] = []

    def make_up(study: Study, specs: Sequence[RunSpec], _: Any, what: str, **__: Any) -> None:
        maker = Maker(study, CANDIDATES)
        maker(specs, what)
        found.extend(maker.batches[0])

    monkeypatch.setattr("capacity.studies.make.environment", lambda *_: fakes.FINGERPRINT)
    monkeypatch.setattr("capacity.studies.make.make_missing", make_up)
    return found


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    (tmp_path / "chosen.toml").write_text(ADAPTIVE)
    (tmp_path / "all.toml").write_text(GRID)

    def asked(*arguments: str) -> dict[str, Any]:
        done = capacity(tmp_path, "threshold", *arguments, "--null", "0", "--json")
        assert done.code == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    return asked


def test_an_adaptive_study_answers_the_question_of_its_file(made: list[str], ask: Ask) -> None:
    found = ask("--study", "chosen.toml")
    runs = len(made)
    assert runs > 0
    assert found == ask("capacity-studies/chosen", "--gain", "0.5")
    assert found != ask("--study", "chosen.toml", "--gain", "0.8")
    assert len(made) == runs  # the study was continued, and nothing was missing


def test_a_grid_is_run_and_asked_what_the_options_say(made: list[str], ask: Ask) -> None:
    found = ask("--study", "all.toml", "--out", "here", "--target", "0.6", "--workers", "1")
    assert sum("sft" in label for label in made) == 8
    assert found == ask("here", "--target", "0.6")


@pytest.mark.usefixtures("made", "ask")
def test_the_text_says_what_was_made_before_it_answers(tmp_path: Path) -> None:
    done = capacity(tmp_path, "threshold", "--study", "all.toml", "--target", "0.6", "--null", "0")
    assert done.code == 0, done.err
    first, answer = done.out.split("\n\n", 1)
    assert "runs in capacity-studies/all; " in first
    assert "sft" in answer


BAD = {
    "no source": ((), "give either POINTS, or a study file by --study"),
    "two sources": (("table.csv", "--study", "all.toml"), "give either POINTS, or a study file by --study"),
    "workers of a table": (("table.csv", "--workers", "2"), "--workers belongs to --study: add that, or leave"),
    "no such file": (("--study", "nowhere.toml"), "nowhere.toml: no such study file"),
    "two questions": (("--study", "all.toml", "--target", "0.5", "--gain", "0.5"), "give --target, or --gain"),
    "no such unit": (("--study", "all.toml", "--unit", "bits"), "--unit 'bits': choose parameters or bytes"),
}


@pytest.mark.usefixtures("ask")
@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_asked_is_refused_before_a_run_is_made(
    tmp_path: Path, made: list[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in capacity(tmp_path, "threshold", *arguments).refused(2)
    assert made == []


def test_options_go_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "chosen.toml").write_text(ADAPTIVE)
    file = read_any_study(tmp_path / "chosen.toml")
    assert asked_of(file, None, None) == (None, 0.5)
    assert asked_of(file, 0.7, None) == (0.7, None)
