import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FINGERPRINT, outcomes, result, spec, study_in
from test_describe import HELDOUT, steps_of
from typer.testing import CliRunner

from capacity.errors import DataError, SpecError
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.looked_up import configurations, train_items
from capacity_cli.app import app
from capacity_reports.sections.lengths import lengths_section
from capacity_reports.sources import Lookups, read_source
from capacity_reports.views import Analysis, Options


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["describe", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = study_in(tmp_path)
    for method in ("base", "sft", "rft", "grpo"):
        for seed in range(1 if method == "base" else 3):
            add_run(made, spec(method, seed), HELDOUT if method in ("sft", "rft") else {})
    return made


def add_run(study: Study, run_spec: RunSpec, extra: dict[str, Any]) -> None:
    rows = steps_of(run_spec.method) if run_spec.training else []
    update = b"theta" if run_spec.training else None
    study.add(run_spec, FINGERPRINT, result(run_spec, [1, 0], **extra), rows, outcomes([1, 0]), update)


def test_json_has_every_quantity_of_every_arm(study: Study):
    found = json.loads(run(str(study.folder), "--json", "--configurations", "4"))
    arms = {arm["method"]: arm for arm in found["arms"]}
    assert list(arms) == ["sft", "rft", "grpo"]
    sft, grpo = arms["sft"]["quantities"], arms["grpo"]["quantities"]
    assert set(sft) == set(grpo)
    assert sft["excess_bits"] == {
        "estimate": 96.0, "low": 96.0, "high": 96.0, "n": 3, "at_least": False, "shared": None,
    }  # fmt: skip
    assert sft["selection_bits"]["estimate"] == 2
    assert "own samples" in grpo["excess_bits"]["not_measured"]
    assert grpo["reward_cap_bits"]["estimate"] == 24
    assert arms["sft"]["seeds"] == [0, 1, 2]
    assert "not to be divided" in found["warnings"][0]


def test_text_shows_intervals_what_they_are_for_and_why_quantities_are_absent(study: Study):
    add_run(study, spec("sft", 3), HELDOUT | {"heldout_code_length_bits": 170.0})
    text = run(str(study.folder), "--details", "--configurations", "4")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "Intervals: 95 % over fresh seeds, 4 seeds; 95 % over fresh seeds, 3 seeds." in text
    assert "sft tinylora 13 bf16 4 20 15.5 (13.9 to 17.1) 2 1.55 (1.39 to 1.71)" in lines
    assert any(line.startswith("grpo tinylora 13 bf16 3 208 4,000 2 4,210") for line in lines)
    assert "Not measured for grpo, the run recorded no loss on held-out demonstrations" in text
    assert "Not measured for rft, the run recorded no rewards" in text
    assert "NaN" not in text


def test_command_and_page_say_the_same_of_a_study_with_tuning_and_two_protocols(study: Study):
    add_run(study, spec("sft", 1000, split="validation"), HELDOUT | {"heldout_code_length_bits": 250.0})
    for seed in range(2):
        add_run(study, spec("grpo", seed, temperature=0.0), {})
    found = json.loads(run(str(study.folder), "--json", "--configurations", "4"))
    told = [(arm["method"], arm["differs"], arm["seeds"]) for arm in found["arms"]]
    assert told == [
        ("sft", "", [0, 1, 2]),
        ("rft", "", [0, 1, 2]),
        ("grpo", "evaluation.temperature 0", [0, 1]),
        ("grpo", "evaluation.temperature 1", [0, 1, 2]),
    ]
    analysis = Analysis(read_source(str(study.folder)), Options(), (), (), (), ())
    section = lengths_section(analysis, Lookups(train_items, lambda *_: 4))
    (exported,) = [block for block in section.blocks if getattr(block, "name", "") == "description-lengths"]
    measured = ("estimate", "low", "high", "n")
    of_page = {(r["cell"], r["quantity"]): tuple(r[name] for name in measured) for r in exported.records() if r["n"]}
    of_command = {
        (arm["cell"], key): tuple(value[name] for name in measured)
        for arm in found["arms"]
        for key, value in arm["quantities"].items()
        if "n" in value
    }
    assert of_page == of_command
    assert "what differs" in run(str(study.folder), "--details")


def test_epsilon(study: Study):
    found = json.loads(run(str(study.folder), "--json", "--epsilon", "1.9", "--configurations", "4"))
    assert found["arms"][0]["quantities"]["surplus_bits"]["estimate"] == 12
    with pytest.raises(SpecError, match="--epsilon -1"):
        run(str(study.folder), "--epsilon", "-1")


def test_missing_and_empty_studies(tmp_path: Path):
    with pytest.raises(DataError, match="no such study"):
        run(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nothing to describe"):
        run(str(study_in(tmp_path).folder))


def test_configurations_are_the_trials_of_the_shipped_rate_and_unknown_for_others(monkeypatch: pytest.MonkeyPatch):
    row = {
        "model": "abacus-0.9m", "task": "abacus", "method": "grpo", "adapter": "tinylora", "trained_parameters": 13,
        "learning_rate": 0.01, "at_edge": False, "trials": [{"rate": r} for r in (0.001, 0.01, 0.1)],
    }  # fmt: skip
    rows = [row, row | {"method": "sft", "demonstrations": "worked", "learning_rate": 0.002}]
    monkeypatch.setattr("capacity.plan.rates.shipped", lambda: rows)
    assert configurations(spec("grpo"), 13) == 3
    assert configurations(spec("random-reward"), 13) == 3
    assert isinstance(configurations(spec("sft"), 13), Absent)  # its rate is another than the shipped one
    assert isinstance(configurations(spec("rft"), 13), Absent)  # none ships
    elsewhere = spec("grpo").model_copy(update={"model": "qwen2.5-0.5b"})
    assert isinstance(configurations(elsewhere, 13), Absent)  # its rate is a default that nobody tuned


def test_train_split_of_a_task_and_of_an_unknown_one():
    assert train_items(spec("sft")) == 8192
    elsewhere = spec("sft").model_copy(update={"task": spec("sft").task.model_copy(update={"name": "elsewhere"})})
    assert isinstance(train_items(elsewhere), Absent)


def test_styles_of_demonstrations_are_arms_of_their_own(study: Study):
    for seed in range(3):
        plain = spec("sft", seed)
        options = {**plain.task.options, "style_bits": 8.0, "style_shift": 0.0}
        noisy = plain.model_copy(update={"task": plain.task.model_copy(update={"options": options})})
        add_run(study, noisy, HELDOUT)
    found = json.loads(run(str(study.folder), "--json", "--configurations", "4"))
    arms = [(arm["method"], arm["demonstrations"], arm["seeds"]) for arm in found["arms"]]
    assert [arm for arm in arms if arm[0] == "sft"] == [
        ("sft", spec("sft").task.style, [0, 1, 2]),
        ("sft", "worked&style_bits=8&style_shift=0", [0, 1, 2]),
    ]
    text = run(str(study.folder), "--details", "--configurations", "4")
    for style in (spec("sft").task.style, "worked&style_bits=8&style_shift=0"):
        assert f"Update, abacus-0.9m, {style}" in text
    rows = [line.split()[:5] for line in text.splitlines()]
    assert rows.count(["grpo", "tinylora", "13", "bf16", "3"]) == 2 * 2  # sees none, so it stands with each
    assert not any(row[4:] == ["6"] for row in rows)
