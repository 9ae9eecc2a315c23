"""What the commands say of one study of known answers: the same numbers everywhere, and verdicts that runs carry."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import outcomes
from typer.testing import CliRunner

from capacity.plan.grid import result_specs
from capacity.plan.study_file import read_study_file
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.result import Result
from capacity.spec.run import RunSpec
from capacity.studies.device import device
from capacity_cli.app import app

ITEMS = 1024  # of the protocol that compare and sweep share
FILE = """
name = "known"
[[grids]]
models = ["abacus-0.9m"]
methods = [{methods}]
sizes = [{sizes}]
rates = "shipped"
seeds = {seeds}
"""
SHARE = {"base": 0.40, "sft": 0.45, "rft": 0.47, "grpo": 0.62}


def planned(
    folder: Path, sizes: Sequence[int] = (13,), methods: Sequence[str] = ("sft", "grpo"), seeds: int = 3
) -> tuple[Path, list[RunSpec]]:
    """A study file, and the runs that it asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "known.toml"
    listed = ", ".join(f"{{ budget = {size} }}" for size in sizes)
    quoted = ", ".join(f'"{method}"' for method in methods)
    path.write_text(FILE.format(methods=quoted, sizes=listed, seeds=seeds))
    return path, result_specs(read_study_file(path), {})


def finish(folder: Path, specs: Sequence[RunSpec], shares: dict[str, float] = SHARE) -> Study:
    """The study with all runs made in this environment: the same items are easy for all, seeds differ a little."""
    study = Study(folder)
    ease = np.random.default_rng(1).uniform(size=ITEMS)
    with study.locked():
        study.write_plan(specs)
        for spec in specs:
            rng = np.random.default_rng([spec.seed, len(spec.method)])
            luck = rng.uniform(size=ITEMS)[: spec.evaluation.items]
            share = shares[spec.method] + (rng.normal(0, 0.03) if spec.training else 0)
            right = [int(x) for x in 0.7 * ease[: spec.evaluation.items] + 0.3 * luck < share]
            size = spec.adapter.groups * spec.adapter.u if spec.training else 0  # type: ignore[union-attr]
            result = Result(
                model_parameters=861_952, family="abacus", trained_parameters=size, update_bytes=2 * size,
                n_items=len(right), n_correct=sum(right), accuracy=sum(right) / len(right),
                prompts=960, sequences=7680, sampled_tokens=0, trained_tokens=2400, flops=10**9, wall_seconds=2.0,
                worker_peak_memory_bytes=10**9,
            )  # fmt: skip
            rows = outcomes(right, split=spec.evaluation.split)
            study.add(spec, current(device(), "fp32"), result, [], rows, b"theta" if spec.training else None)
    return study


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def said(*arguments: object) -> dict[str, Any]:
    """The result of a command as JSON."""
    found: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return found


def compare(folder: Path) -> tuple[object, ...]:
    """The command on the runs that are stored in `folder`, which have random projections."""
    size = ("--budget", 13, "--projection", "random")
    return "compare", "--methods", "sft,grpo", *size, "--seeds", 3, "--out", folder, "--no-report"


def compared(folder: Path, *more: object) -> dict[str, Any]:
    return said(*compare(folder), *more)


def page(*folders: Path) -> list[str]:
    """The verdicts that a report prints."""
    out = folders[0].parent / "page.html"
    verdicts: list[str] = said("report", *folders, "--out", out)["verdicts"]
    return verdicts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    path, specs = planned(folder, sizes=(13, 84))
    finish(folder / "study", specs)
    return path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent / "study", tmp_path / "study")
    return tmp_path / "study"


def test_a_cell_has_one_accuracy_whichever_command_prints_it(made: Path) -> None:
    folder = made.parent / "study"
    ends = ("accuracy", "low", "high")
    compare = {r["method"]: tuple(r[k] for k in ends) for r in compared(folder)["results"]}
    swept = said("sweep", made, "--out", folder, "--no-report")["sizes"]
    sweep = {r["method"]: tuple(r[k] for k in ends) for r in swept if r["trained_parameters"] == 13}
    bits = {
        p["method"]: tuple(p[k] for k in ends)
        for p in said("bits", folder, "--replicates", 100)["frontier"]
        if p["trained_parameters"] == 13
    }
    run("report", folder, "--format", "json", "--out", folder.parent / "page.json")
    tables = {
        t["name"]: t["rows"]
        for section in json.loads((folder.parent / "page.json").read_text())["sections"]
        for t in section["tables"]
    }
    shown = {
        name: {r["method"]: tuple(r[k] for k in ends) for r in tables[name] if r["trained_parameters"] == 13}
        for name in ("accuracy-abacus-0-9m", "accuracy-bits-abacus-0-9m", "frontier-abacus-0-9m", "comparison")
    }
    assert compare == sweep == bits
    assert all(found == compare for found in shown.values())
    assert set(compare) == {"sft", "grpo"}


def test_the_figure_draws_the_interval_that_the_table_prints(made: Path) -> None:
    from matplotlib.figure import Figure as Canvas

    from capacity_reports.report import build_report

    figure = build_report([made.parent / "study"]).figure("accuracy-abacus-0-9m")
    axes = Canvas().add_subplot()
    figure.draw(axes)
    drawn = {tuple(float(y) for y in line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2}
    assert {(r["low"], r["high"]) for r in figure.data.records()} <= drawn


def test_every_text_says_what_its_intervals_are_for(made: Path) -> None:
    folder = made.parent / "study"
    label = "95 %, fresh seeds and items, 3 seeds"
    for arguments in (
        compare(folder),
        ("sweep", made, "--out", folder, "--no-report"),
        ("bits", folder, "--replicates", 100),
    ):
        assert label in " ".join(run(*arguments).stdout.split()), arguments
    run("report", folder, "--format", "md", "--out", folder.parent / "page.md")
    assert label in (folder.parent / "page.md").read_text()


def test_a_report_says_what_compare_says_and_reads_nothing_but_runs(tmp_path: Path) -> None:
    _, specs = planned(tmp_path)
    folder = finish(tmp_path / "study", specs).folder
    claims = compared(folder)["verdict"].split(": ", 1)[1].rpartition(" (")[0].split("; ")
    assert len(claims) == 3  # a pair, and two gains
    assert not (folder / "comparison.json").exists()
    before = page(folder)
    assert all(any(claim in line for line in before) for claim in claims)
    (folder / "comparison.json").write_text('{"verdict": "With 13 trained parameters: sft wins.", "results": []}')
    assert page(folder) == before


def test_a_study_and_its_own_table_allow_the_same_verdicts(made: Path, tmp_path: Path) -> None:
    folder = made.parent / "study"
    run("runs", folder, "--points", tmp_path / "points.csv")
    verdicts = page(folder)
    assert len(verdicts) == 4  # a ratio, a pair, and two gains
    assert page(tmp_path / "points.csv") == verdicts


def test_runs_that_are_deleted_change_the_verdict_and_are_missed(tmp_path: Path) -> None:
    _, specs = planned(tmp_path)
    folder = finish(tmp_path / "study", specs).folder
    compared(folder)
    before = page(folder)
    lost = [s for s in specs if s.method == "grpo" and s.seed > 0]
    for spec in lost:
        shutil.rmtree(folder / "runs" / spec.short_id)
    after = page(folder)
    assert not any("grpo scores higher" in line for line in after)
    assert any("grpo scores higher" in line for line in before)
    assert any("2 grpo runs gave no result" in line for line in after)


def test_studies_that_are_merged_by_copying_runs_keep_their_verdicts(tmp_path: Path) -> None:
    verdicts = []
    for size in (13, 84):
        _, specs = planned(tmp_path / str(size), sizes=(size,))
        folder = finish(tmp_path / str(size) / "study", specs).folder
        verdicts.append(page(folder))
        shutil.copytree(folder / "runs", tmp_path / "merged" / "runs", dirs_exist_ok=True)
    merged = " ".join(page(tmp_path / "merged"))
    assert all("grpo scores higher than sft" in lines[0] for lines in verdicts)
    assert "grpo scores higher than sft at 13 (+" in merged
    assert ") and 84 (+" in merged
    assert "grpo gains over the base at 13 and 84." in merged


def test_with_one_seed_sizes_and_ratios_allow_no_claim_about_methods_either(tmp_path: Path) -> None:
    _, specs = planned(tmp_path, sizes=(13, 28, 84), seeds=1)
    folder = finish(tmp_path / "study", specs).folder
    compared_lines = [line for line in page(folder) if "parameters that" not in line]
    assert compared_lines[0].startswith("One seed: no claim about methods. By trained parameters")
    assert not any("higher" in line for line in compared_lines)
    ratios = [line for line in page(folder) if "parameters that" in line]
    assert ratios
    assert all("one seed, no claim about methods; in these runs sft needs" in line for line in ratios)
    assert "one seed, no claim about methods; in these runs sft needs" in run("threshold", folder, "--null", 0).stdout
    assert "one seed: no claim about methods" in run("bits", folder, "--replicates", 100).stdout


def test_with_one_seed_there_is_no_claim_about_methods(tmp_path: Path) -> None:
    _, specs = planned(tmp_path, seeds=1)
    folder = finish(tmp_path / "study", specs).folder
    verdict = compared(folder, "--seeds", 1)["verdict"]
    assert verdict.startswith("One seed: no claim about methods. With 13 trained parameters: ")
    assert "grpo − sft +" in verdict
    assert "grpo gains over the base in its one run" in verdict
    for line in (verdict, *page(folder)):
        assert "higher" not in line
        assert "cannot be told apart" not in line
