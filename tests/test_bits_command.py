import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import add, spec, study_in
from typer.testing import CliRunner

from capacity.errors import DataError, SpecError
from capacity_cli.app import app
from capacity_reports.report import build_report
from capacity_reports.views import Options

SIZES = (1, 4, 13, 84, 1792)


def write(folder: Path, seeds: int = 3, **columns: object) -> Path:
    rng = np.random.default_rng(0)
    rows = [{"model": "m", "method": "base", "trained_parameters": 0, "n_items": 1000, "n_correct": 500}]
    for (method, e), size, seed in itertools.product((("sft", 300), ("grpo", 30)), SIZES, range(seeds)):
        right = rng.binomial(1000, 0.5 + 0.45 / (1 + e / size))
        rows.append(
            {
                "model": "m", "method": method, "trained_parameters": size, "storage_dtype": "bf16",
                "update_bytes": 2 * size, "seed": seed, "n_items": 1000, "n_correct": right, **columns,
            }
        )  # fmt: skip
    path = folder / "points.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["bits", *arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json(tmp_path: Path):
    found = json.loads(run(str(write(tmp_path)), "--json", "--replicates", "200"))
    assert found["unit"] == "bytes"
    by = {(s["test"], s["anchor"]): s for s in found["savings"]}
    assert set(by) == {("sft", "grpo"), ("grpo", "sft")}
    saving = by["grpo", "sft"]
    assert {"model", "test", "anchor", "size_ratio", "low", "high", "overlap"} <= set(saving)
    assert (saving["model"], saving["overlap"]) == ("m", True)
    assert 0.03 < saving["low"] < saving["size_ratio"] < saving["high"] < 0.3
    assert by["sft", "grpo"]["size_ratio"] == pytest.approx(1 / saving["size_ratio"])
    place = found["frontier"][0]
    assert {"method", "storage_dtype", "trained_parameters", "size", "accuracy", "on_frontier", "membership"} <= set(
        place
    )
    assert len(found["frontier"]) == 2 * len(SIZES)


def test_the_seed_decides(tmp_path: Path):
    path = str(write(tmp_path))
    first, again, other = (run(path, "--json", "--replicates", "100", "--seed", s) for s in "001")
    assert first == again != other


def test_text(tmp_path: Path):
    text = run(str(write(tmp_path)), "--replicates", "100", "--details")
    (headline,) = [line for line in text.splitlines() if "the parameters that grpo needs" in line]
    assert headline.startswith("m: sft needs ")
    assert ", by Hill curves; by the monotone estimator " in headline
    assert headline.endswith(" (for 80 % of the gain; 95 %, fresh seeds on these items, variance pooled over sizes).")
    lines = text.splitlines()
    (title,) = [place for place, line in enumerate(lines) if line.startswith("Size at equal accuracy, bytes")]
    assert "Bjøntegaard's ratio" in lines[title + 1]
    assert lines[title + 2].split()[:3] == ["m", "sft", "grpo"]
    assert "× (" in lines[title + 2]
    assert "Accuracy at equal bytes" in text
    assert "1,792" in text


def test_the_terminal_says_what_the_page_says(tmp_path: Path):
    path = str(write(tmp_path))
    printed = [line.split() for line in run(path, "--replicates", "250", "--details").splitlines()]
    report = build_report([path], options=Options(null=0))
    for row in report.table("frontier-m").texts():
        assert " ".join(row).split() in printed
    assert report.table("savings").title.split() in printed
    for verdict in report.verdicts:
        assert verdict.split() in printed


def test_relabelling_the_arms_changes_the_names_only(tmp_path: Path):
    path = write(tmp_path)
    plain = json.loads(run(str(path), "--json", "--replicates", "100"))
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(path.read_text().replace("grpo", "zeta"))
    found = json.loads(run(str(renamed), "--json", "--replicates", "100"))
    assert json.loads(json.dumps(plain["savings"]).replace("grpo", "zeta")) == found["savings"]


def test_published_figures_give_no_interval():
    found = json.loads(run("reference:tinylora-table2", "--task", "gsm8k", "--json"))
    assert found["unit"] == "parameters"
    assert found["savings"] == []  # one arm a model
    assert all(place["low"] is None and place["membership"] is None for place in found["frontier"])


def test_a_study_folder_tells_sharing_u_and_groups(tmp_path: Path):
    study = study_in(tmp_path)
    add(study, spec("base"), [1, 0, 1, 0])
    for seed in range(2):
        add(study, spec("sft", seed), [1, 1, 0, 0])
        add(study, spec("grpo", seed), [1, 1, 1, 0])
    found = json.loads(run(str(study.folder), "--json", "--replicates", "100", "--items", "population"))
    places = {place["method"]: place for place in found["frontier"]}
    assert {k: places["grpo"][k] for k in ("sharing", "u", "groups", "size")} == {
        "sharing": "tiled", "u": 1, "groups": 13, "size": 26.0,
    }  # fmt: skip
    assert places["grpo"]["on_frontier"]
    assert not places["sft"]["on_frontier"]
    assert [s["overlap"] for s in found["savings"]] == [False, False]


def test_arms_of_one_size_have_no_ratio_and_one_line(tmp_path: Path):
    study = study_in(tmp_path)
    for method in ("sft", "grpo", "rft"):
        add(study, spec(method), [1, 1, 1, 0])
    text = run(str(study.folder), "--replicates", "100", "--details")
    lines = [line for line in text.splitlines() if "no size at equal accuracy for" in line]
    assert len(lines) == 2
    assert all("was tested at one size only, which is no curve" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), SpecError, "give a points table"),
        (("POINTS", "--unit", "stone"), SpecError, "--unit 'stone'"),
        (("POINTS", "--items", "all"), SpecError, "--items 'all'"),
        (("POINTS", "--by", "colour"), SpecError, "unknown field 'colour'"),
        (("POINTS", "--task", "chess"), SpecError, "unknown field 'task'"),
        (("POINTS", "--items", "population"), DataError, "no per-item outcomes"),
        (("nowhere.csv",), DataError, "no such points table"),
        (("reference:tinylora-table2",), SpecError, "differ in task .* choose with --where task="),
    ],
)
def test_wrong_input(tmp_path: Path, arguments, error, message):
    path = str(write(tmp_path))
    with pytest.raises(error, match=message):
        run(*(path if a == "POINTS" else a for a in arguments))


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("n_correct", "right"))
    code = f"import sys; sys.argv = ['capacity', 'bits', {str(path)!r}]; from capacity_cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "n_correct" in done.stderr
