"""The library: what a notebook calls is what the commands call, imported when it is first used."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import fakes
import guarded
import pandas as pd
import pytest
from test_thresholds import frame, hill
from typer.testing import CliRunner

import capacity
from capacity.errors import CapacityError, DataError, SpecError
from capacity.library.published import published
from capacity.spec.adapters import TinyLora
from capacity_cli.app import app


def command(*arguments: str) -> Any:
    """What a command prints with --json."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_importing_the_library_is_quick_and_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import capacity; took = time.perf_counter() - began; "
        "assert not {'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules); print(took)"
    )
    run = [sys.executable, "-c", code]
    took = [float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(took) < 0.05


def test_every_name_comes_from_where_type_checkers_see_it() -> None:
    tree = ast.parse(Path(capacity.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: str(node.module) for node in imports for alias in node.names}
    assert sorted(seen) == sorted(capacity.__all__)
    assert set(seen) <= set(dir(capacity))
    for name, home in seen.items():
        assert getattr(capacity, name) is getattr(import_module(home), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'capacity' has no attribute 'comparre'"):
        capacity.comparre  # noqa: B018


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (("--model", "qwen2.5-3b"), {"model": "qwen2.5-3b"}),
        (("--budget", "26B", "--memory", "24GB"), {"size": "26B", "memory": "24GB"}),
        (("--adapter", "lora", "--rollouts", "vllm"), {"size": {"adapter": "lora"}, "rollouts": "vllm"}),
    ],
)
def test_a_planned_update_is_what_the_command_prints(options: tuple[str, ...], asked: dict[str, Any]) -> None:
    if isinstance(asked.get("size"), dict):
        asked["size"] = capacity.SizeChoice(**asked["size"])
    plan = capacity.plan_update(**asked)
    assert plan.to_json() == command("plan", *options)
    assert (
        repr(plan)
        == f"<UpdatePlan: {plan.model}, {plan.size.kind}, {plan.size.trained_parameters:,} trained parameters>"
    )
    assert f"<td>{plan.size.trained_parameters:,}</td>" in plan._repr_html_()


@pytest.fixture
def study(tmp_path: Path) -> capacity.Study:
    """Two runs of a cell, and the base."""
    found = capacity.Study(tmp_path / "study")
    with found.locked():
        for seed in (0, 1):
            fakes.add(found, fakes.spec("sft", seed), [1, 0, 1, 1])
        fakes.add(found, fakes.spec("base"), [1, 0, 0, 0])
    return found


def test_a_study_has_its_runs_cells_and_points(study: capacity.Study) -> None:
    assert list(study.points["accuracy"]) == [0.25, 0.75, 0.75]
    assert list(study.points["run"]) == [run.spec.short_id for run in study.runs()]
    assert {cell.label: len(runs) for cell, runs in study.cells().items()} == {"base T=1": 1, "sft 13": 2}
    assert repr(study) == f"<Study: {study.folder}, 3 complete runs>"
    assert "<td>sft 13</td>" in study._repr_html_()
    assert study.states(study.runs()[:1]) == ["stale"]  # its sources are made up


def test_points_of_two_environments_are_refused_unless_allowed(study: capacity.Study) -> None:
    other = fakes.FINGERPRINT.model_copy(update={"sources": "t"})
    fakes.add(study, fakes.spec("grpo"), [1, 1, 1, 1], other)
    with pytest.raises(DataError, match="runs of different environments"):
        study.points  # noqa: B018
    assert len(capacity.Study(str(study.folder), allow_mixed=True).points) == 4


def test_a_study_that_is_not_there_has_a_line_and_no_runs(tmp_path: Path) -> None:
    absent = capacity.Study(tmp_path / "nowhere")
    assert repr(absent) == f"<Study: {absent.folder}, 0 complete runs>"
    with pytest.raises(DataError, match="no such study folder"):
        absent.runs()


def test_an_update_is_put_on_a_model_of_the_users_own(smallest: Any) -> None:
    adapted = capacity.attach(smallest, 13, seed=3)
    assert adapted.trained_parameters == 13
    assert [adapted.adapter.kind, getattr(adapted.adapter, "projection_seed", None)] == ["tinylora", 3]
    assert sum(p.numel() for p in adapted.model.parameters() if p.requires_grad) == 13


def test_an_update_is_put_on_by_its_spec_or_by_a_choice(smallest: Any) -> None:
    spec = TinyLora(rank=2, u=2, groups=7, projection_seed=0)
    assert capacity.attach(smallest, spec).trained_parameters == 14


def test_a_choice_that_the_model_does_not_have_is_refused(smallest: Any) -> None:
    with pytest.raises(SpecError, match="unknown module type"):
        capacity.attach(smallest, capacity.SizeChoice(adapter="lora", targets="qproj"))


def test_a_model_is_opened_and_evaluated() -> None:
    opened = capacity.load(model="abacus-0.2m", device="cpu")
    assert repr(opened) == "Opened(base='abacus-0.2m', form='base')"
    found = capacity.evaluate("abacus-0.2m", items=8)
    assert found.to_json() == command("evaluate", "abacus-0.2m", "--items", "8")
    assert repr(found).startswith("<Evaluated: abacus-0.2m on abacus, test: ")
    assert found.lines[0] in found._repr_html_()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "give a MODEL"),
        ({"model": "abacus", "control": "off"}, "--control off takes an adapter's place"),
        ({"model": "abacus", "control": "none"}, "--control none: choose off or zero"),
        ({"model": "abacus", "drift": True}, "--drift compares an adapter with a control twice"),
        ({"model": "abacus", "split": "train"}, "choose test or validation"),
        ({"model": "abacus", "adapter": "nowhere"}, "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_evaluated_is_said(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(CapacityError, match=says):
        capacity.evaluate(**asked)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points of two methods at five sizes."""
    path = tmp_path_factory.mktemp("points") / "points.csv"
    curves = {"sft": lambda x: hill(x, upper=0.6), "grpo": hill}
    frame(curves, noise=4, sizes=[1, 10, 100, 1000, 10000]).to_csv(path, index=False)
    return path


def test_thresholds_are_what_the_command_prints(table: Path) -> None:
    found = capacity.thresholds(table, target=0.8, null=0)
    assert found.to_json() == command("threshold", str(table), "--target", "0.8", "--null", "0")
    assert found.study.sentences()[0] in repr(found)
    assert "Smallest update that reaches the target" in found._repr_html_()
    assert "Not supported by these data:" in found._repr_html_()


def test_a_data_frame_answers_as_its_file_does(table: Path) -> None:
    of_file, of_frame = (capacity.thresholds(p, target=0.8, null=0).to_json() for p in (table, pd.read_csv(table)))
    assert of_frame["curves"] == of_file["curves"]
    assert of_frame["ratios"] == of_file["ratios"]


def test_bits_are_what_the_command_prints(table: Path) -> None:
    found = capacity.bits(table, unit="parameters", replicates=100)
    expected = command("bits", str(table), "--unit", "parameters", "--replicates", "100")
    assert found.to_json() == expected
    assert repr(found) == f"<Bits: {table}: 10 configurations, {found.line.split(', ')[1]}>"
    assert "Size at equal accuracy" in found._repr_html_()


def test_published_figures_are_what_the_command_prints() -> None:
    found = published("tinylora-table2")
    assert found.to_json() == command("threshold", "reference:tinylora-table2")
    assert found.supported[0] in found._repr_html_()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda t: capacity.thresholds(t, target=0.8, gain=0.5), "not both"),
        (lambda t: capacity.thresholds(t, unit="bits"), "choose parameters or bytes"),
        (lambda t: capacity.thresholds(t, where=["methd=sft"]), "did you mean method"),
        (lambda t: capacity.bits(t, items="some"), "choose these or population"),
        (lambda _: capacity.describe("nowhere"), "nowhere: no such study folder"),
        (lambda _: capacity.report("nowhere"), "nowhere: no such points table or study folder"),
        (lambda _: capacity.compare(methods=["sft", "gpro"]), "unknown method 'gpro': did you mean grpo"),
        (lambda _: capacity.compare(size="many"), "budget 'many' cannot be read"),
        (lambda _: capacity.compare(learning_rates={"gpro": 0.1}), "'gpro' is not among the methods"),
        (lambda _: capacity.compare(learning_rates=-1), "'-1' is not a positive number"),
        (lambda _: capacity.sweep({"name": "a", "grids": []}), "study: grids is []: it must be a list of 1 or more"),
        (lambda _: capacity.check(), "give either a study folder, or --run"),
        (lambda _: capacity.check("nowhere", margin=2.0), "margin"),
        (lambda _: capacity.export("nowhere", "gguf"), "unknown form 'gguf'"),
    ],
)
def test_what_cannot_be_done_is_one_line(table: Path, ask: Callable[[Path], Any], says: str) -> None:
    with pytest.raises(CapacityError, match=re.escape(says)) as refused:
        ask(table)
    assert "\n" not in str(refused.value)


def test_a_study_is_checked_against_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = guarded.write(guarded.make(seeds=range(4)), tmp_path / "study", monkeypatch)
    written = capacity.baseline(study, tmp_path / "baseline.json")
    assert repr(written).startswith(f"<WrittenBaseline: {tmp_path / 'baseline.json'}: ")
    with pytest.raises(SpecError, match="exists already"):
        capacity.baseline(study, written.path)
    found = capacity.check(study, written.path)
    assert found.found.outcome == "identical"
    printed = command("check", str(study), "--baseline", str(written.path))
    assert printed == json.loads(json.dumps(found.to_json())) | {"exit_code": 0}
    assert repr(found) == f"<Checked: identical: {found.found.verdict}>"
    assert found.found.verdict in found._repr_html_()


def test_a_report_is_shown_in_a_line_and_as_a_page(study: capacity.Study) -> None:
    found = capacity.report(study, null=0)
    assert repr(found) == f"<Report: study, {len(found.sections)} sections>"
    assert not (study.folder / "report.html").exists()
    capacity.report(study, out=study.folder / "page.md", null=0)
    assert (study.folder / "page.md").read_text().startswith("# study")
