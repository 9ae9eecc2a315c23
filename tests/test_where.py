"""Choosing runs by what they are, on tables and study folders, on every command that reads them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import add, raw_spec, spec, study_in
from typer.testing import CliRunner

from capacity.errors import SpecError
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.data.where import conditions, runs_where, where
from capacity_cli.app import app


def changed(method: str, seed: int, **parts: Any) -> RunSpec:
    """A spec of the fakes with fields of its parts changed."""
    raw = raw_spec(method, seed)
    for part, fields in parts.items():
        raw[part] = {**(raw.get(part) or {}), **fields} if isinstance(fields, dict) else fields
    return RunSpec.model_validate(raw)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """sft and grpo under two sharings and two numbers of steps, lora-xs, sft+grpo, and the base."""
    made = study_in(tmp_path_factory.mktemp("where"))
    add(made, spec("base"), [1, 0, 0, 0])
    add(made, spec("base", temperature=0.5), [1, 0, 0, 0])
    for seed in range(2):
        for method in ("sft", "grpo"):
            add(made, changed(method, seed), [1, 1, 0, 0])
            add(made, changed(method, seed, adapter={"sharing": "structured"}), [1, 1, 1, 0])
        add(made, changed("grpo", seed, training={"steps": 4}), [1, 1, 1, 1])
        add(made, changed("grpo", seed, rollouts={"engine": "vllm"}), [1, 1, 0, 1])
        add(made, changed("sft", seed, adapter={"targets": ["q_proj", "k_proj"]}), [1, 0, 1, 1])
        add(made, changed("sft+grpo", seed), [1, 1, 0, 0])
    add(made, RunSpec.model_validate({**raw_spec("grpo"), "adapter": {"kind": "lora-xs", "rank": 4}}), [1, 1, 1, 1])
    return made


@pytest.fixture(scope="module")
def points(study: Study) -> Points:
    return read_points(str(study.folder))


def kinds(points: Points) -> set[str]:
    """Method and adapter of the rows that are left."""
    return {f"{m} {a}" for m, a in zip(points.frame["method"], points.frame["adapter"], strict=True)}


def test_nothing_asked_for_is_everything(points: Points) -> None:
    assert len(where(points, ()).frame) == len(points.frame)


@pytest.mark.parametrize("name", ["adapter.sharing", "sharing"])
def test_a_field_of_the_recipe_by_its_path_or_its_end(points: Points, name: str) -> None:
    found = where(points, [f"{name}=structured"])
    trained = found.frame[found.frame["adapter"] == "tinylora"]
    assert set(trained["method"]) == {"sft", "grpo"}
    assert len(trained) == 4
    assert all(f["adapter.sharing"] == "structured" for f in found.fields if f["adapter.kind"] == "tinylora")


def test_runs_that_cannot_have_a_field_stay(points: Points) -> None:
    """The base has no adapter and lora-xs no sharing; grpo sees no demonstrations; sft has no warm start."""
    assert kinds(where(points, ["sharing=structured"])) >= {"base none", "grpo lora-xs"}
    assert kinds(where(points, ["demonstrations=worked&style_bits=4&style_shift=4"])) >= {"base none", "grpo tinylora"}
    assert kinds(where(points, ["style_bits=4"])) >= {"base none", "grpo tinylora", "sft tinylora"}
    assert kinds(where(points, ["warm_start.learning_rate=0.003"])) == kinds(points)
    assert kinds(where(points, ["adapter.kind=lora-xs"])) == kinds(where(points, ["adapter=lora-xs"]))
    assert kinds(where(points, ["task.demonstrations=worked"])) >= {"base none", "grpo tinylora", "sft tinylora"}


@pytest.mark.parametrize(
    "condition", ["method=grpo", "adapter=tinylora", "storage_dtype=bf16", "learning_rate=0.01", "seed=1", "steps=4",
                  "trained_parameters=13"],
)  # fmt: skip
def test_the_untrained_base_stays_whatever_is_asked_of_updates(points: Points, condition: str) -> None:
    assert (where(points, [condition]).frame["method"] == "base").sum() == 2


def test_the_base_is_chosen_by_what_it_has(points: Points) -> None:
    assert (where(points, ["evaluation.temperature=0.5"]).frame["method"] == "base").all()
    assert kinds(where(points, ["method=base"])) == {"base none"}
    assert kinds(where(points, ["adapter=none"])) == {"base none"}
    with pytest.raises(SpecError, match="unknown storage_dtype 'fp32'"):  # the dtype of the base's no update
        where(points, ["storage_dtype=fp32"])


def test_a_part_that_some_runs_of_a_kind_have_is_none_in_the_others(points: Points) -> None:
    assert len(where(points, ["engine=vllm", "method=grpo", "adapter=tinylora"]).frame) == 2 + 2
    assert len(where(points, ["engine=none", "method=grpo", "adapter=tinylora"]).frame) == 6 + 2


def test_values_are_compared_as_numbers_text_lists_and_none(points: Points) -> None:
    four = where(points, ["steps=4.0"])
    assert len(four.frame[four.frame["method"] != "base"]) == 2
    assert len(where(points, ["learning_rate=1e-2"]).frame) == len(points.frame)
    listed = where(points, ["targets=q_proj,k_proj", "method=sft"])
    assert len(listed.frame[listed.frame["method"] != "base"]) == 2
    every = where(points, ["targets=none", "method=sft"])
    assert len(every.frame[every.frame["method"] != "base"]) == 4


def test_two_conditions_on_one_field_ask_for_either_and_on_two_fields_for_both(points: Points) -> None:
    either = where(points, ["method=sft", "method=sft+grpo"])
    assert set(either.frame["method"]) == {"base", "sft", "sft+grpo"}
    both = where(points, ["method=grpo", "steps=4"])
    assert len(both.frame[both.frame["method"] != "base"]) == 2


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("sharing", "--where 'sharing': write field=value"),
        ("=tiled", "write field=value"),
        ("sharng=tiled", "unknown field 'sharng': did you mean sharing"),
        ("sharing=tilde", "unknown adapter.sharing 'tilde': did you mean tiled"),
        ("rank=16", r"unknown adapter.rank '16': .*2"),
        ("temperature=1", "temperature is ambiguous: write evaluation.temperature or grpo.temperature"),
        ("answers=ff", "unknown field 'answers'"),
    ],
)
def test_what_cannot_be_asked_is_one_line_with_the_nearest_names(points: Points, condition: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        where(points, [condition])
    assert "\n" not in str(error.value)


def test_a_table_of_the_former_format_is_asked_for_its_columns_only(points: Points, tmp_path: Path) -> None:
    former = points.frame[(points.frame["method"] != "grpo") | (points.frame["adapter"] == "lora-xs")]
    former = former.drop(columns=["run", "cell", "recipe", "items", "answers"])
    former = former.drop_duplicates(["method", "adapter", "seed", "protocol"])
    former.to_csv(tmp_path / "points.csv", index=False)
    table = read_points(str(tmp_path / "points.csv"))
    assert set(where(table, ["method=sft"]).frame["method"]) == {"base", "sft"}
    assert kinds(where(table, ["adapter.kind=lora-xs"])) == {"base none", "grpo lora-xs"}
    with pytest.raises(SpecError, match=r"unknown field 'sharing'.*no column recipe"):
        where(table, ["sharing=tiled"])


def test_a_row_without_a_recipe_among_others_is_named(points: Points) -> None:
    mixed = points.frame.copy()
    mixed.loc[3, "recipe"] = pd.NA
    with pytest.raises(SpecError, match="row 4 has no recipe, so its sharing is not known"):
        where(from_frame(mixed, "t"), ["sharing=tiled"])


def test_options_are_conditions() -> None:
    assert conditions(["rank=2"], task="gsm8k", adapter=None) == ("rank=2", "task=gsm8k")
    assert conditions() == ()


def test_runs_of_a_folder_are_chosen_alike(study: Study, points: Points) -> None:
    found = runs_where(study.folder, study.runs(), ["sharing=structured", "method=grpo"])
    assert {run.spec.short_id for run in found} == set(
        where(points, ["sharing=structured", "method=grpo"]).frame["run"]
    )
    assert runs_where(study.folder, study.runs(), []) == study.runs()


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


CHOSEN = ("--where", "sharing=structured", "--where", "method=grpo")


def test_every_command_takes_conditions(study: Study, tmp_path: Path) -> None:
    folder = study.folder
    listed = run("runs", folder, *CHOSEN, "--points", tmp_path / "chosen.csv")["runs"]
    assert {r["label"] for r in listed if r["method"] == "grpo"} == {
        "grpo 13 seed 0",
        "grpo 13 seed 1",
        "grpo lora-xs r=4 seed 0",
    }
    assert len(read_points(str(tmp_path / "chosen.csv")).frame) == len(listed)
    places = run("bits", folder, *CHOSEN, "--replicates", "100")["frontier"]
    assert {(p["method"], p.get("sharing")) for p in places} == {("grpo", "structured"), ("grpo", None)}
    described = run("describe", folder, *CHOSEN, "--where", "adapter=tinylora")["arms"]
    assert [arm["method"] for arm in described] == ["grpo"]
    run("report", folder, *CHOSEN, "--null", "0", "--out", tmp_path / "report.json", "--format", "json")
    page = json.loads((tmp_path / "report.json").read_text())
    shown = [t for section in page["sections"] for t in section["tables"] if t["name"].startswith("accuracy")]
    assert {row["method"] for table in shown for row in table["rows"]} == {"grpo"}
    for command in ("threshold", "bits", "report", "runs", "describe"):
        extra = ["--out", str(tmp_path / "r.html")] if command == "report" else []
        with pytest.raises(SpecError, match="did you mean sharing"):
            run(command, folder, "--where", "sharng=tiled", *extra)
