import json
from pathlib import Path

import pytest
from test_thresholds import frame, hill
from typer.testing import CliRunner

from capacity.errors import SpecError
from capacity_cli.app import app
from capacity_cli.threshold import rates_of
from capacity_reports.report import build_report
from capacity_reports.views import Options

run = CliRunner().invoke


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("points") / "points.csv"
    arms = {"sft": lambda x: hill(x, upper=0.6), "grpo": hill}
    frame(arms, noise=4, sizes=[1, 10, 100, 1000, 10000]).to_csv(path, index=False)
    return str(path)


def test_json_has_the_promised_keys(table):
    done = run(app, ["threshold", table, "--target", "0.8", "--null", "20", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert {"curves", "ratios", "null_calibration"} <= set(result)
    for curve in result["curves"]:
        assert {"model", "method", "estimator", "threshold"} <= set(curve)
        assert set(curve["threshold"]) == {"estimate", "low", "high", "censored", "fraction_not_reached"}
        assert curve["estimator"] in ("hill", "monotone")
    for ratio in result["ratios"]:
        promised = {"model", "numerator", "denominator", "estimator", "estimate", "low", "high", "censored"}
        assert promised <= set(ratio)
        assert (ratio["estimate"], ratio["high"]) == (None, None)
    assert result["null_calibration"]["simulations"] == 20


def test_text_says_at_least_and_what_is_not_supported(table):
    done = run(app, ["threshold", table, "--target", "0.8", "--null", "0", "--details"])
    assert done.exit_code == 0, done.output
    assert "sft needs ≥" in done.stdout
    assert "above 10,000, not reached in the tested range" in done.stdout
    assert "– (10,000 to ∞)" in done.stdout
    assert "Not supported by these data:" in done.stdout


def test_the_terminal_says_what_the_page_says(table):
    done = run(app, ["threshold", table, "--null", "20", "--details"])
    assert done.exit_code == 0, done.output
    report = build_report([table], options=Options(null=20, replicates=10))
    printed = [line.split() for line in done.stdout.splitlines()]
    for name in ("thresholds", "thresholds-other", "ratios", "null-calibration", "checklist"):
        found = report.table(name)
        for row in found.texts():
            assert " ".join(row).split() in printed
        assert found.note.split() in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "0.8", "--gain", "0.5"], "not both"),
        (["--unit", "bits"], "choose parameters or bytes"),
        (["--items", "some"], "choose these or population"),
        (["--gain", "80"], "percent"),
        (["--rate", "fast"], "not a positive number"),
        (["--split", "train"], "no trained runs with split"),
    ],
)
def test_wrong_options_are_one_line(table, options, message):
    done = run(app, ["threshold", table, *options])
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_rates_by_method():
    assert rates_of("0.001") == {"": 0.001}
    assert rates_of("sft=0.001,grpo=0.003") == {"sft": 0.001, "grpo": 0.003}
    assert rates_of(None) is None


def test_published_figures_give_first_crossings_without_intervals():
    done = run(app, ["threshold", "reference:tinylora-table2", "--task", "gsm8k", "--gain", "0.95", "--json"])
    assert done.exit_code == 0, done.output
    found = {c["model"]: c for c in json.loads(done.stdout)["curves"] if c["estimator"] == "monotone"}
    assert found["Qwen2.5-3B-Instruct"]["first_crossing"] == 8064
    assert found["Qwen2.5-7B-Instruct"]["threshold"]["censored"] == "left"
    assert all(c["threshold"]["low"] is None and c["threshold"]["high"] is None for c in found.values())


def test_published_figures_alone_give_all_first_crossings_and_what_they_do_not_support():
    done = run(app, ["threshold", "reference:tinylora-table2"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["Qwen2.5-3B-Instruct", "gsm8k", "63", "(81.5)", "63", "(84.8)", "8,064", "(86.5)"] in lines
    assert ["Qwen2.5-Math-7B", "gsm8k", "392", "(77.8)", "392", "(85.3)", ">", "100,352", "(89.0)"] in lines
    assert "Only GRPO: it says nothing about SFT : GRPO ratios." in done.stdout
    assert (
        "Qwen2.5-7B-Instruct needs a smaller update than Qwen2.5-3B-Instruct for 80 % of its gain on 3 of 6"
        in done.stdout
    )


def test_published_figures_alone_as_json():
    done = run(app, ["threshold", "reference:tinylora-table2", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert {"curves", "ratios", "null_calibration", "crossings", "supported", "not_supported"} <= set(result)
    assert {c["task"] for c in result["curves"]} >= {"gsm8k", "math500", "average"}
    assert all(c["threshold"]["low"] is None and c["threshold"]["high"] is None for c in result["curves"])


def test_stated_figures_have_no_crossing():
    done = run(app, ["threshold", "reference:tinylora-text"])
    assert done.exit_code == 0, done.output
    assert "no crossing follows" in done.stdout
    assert "never pool them" in done.stdout


def test_two_rates_of_one_method_are_refused() -> None:
    with pytest.raises(SpecError, match=r"'0.001,0.002': gives all methods two rates: give one"):
        rates_of("0.001,0.002")
    with pytest.raises(SpecError, match="gives sft two rates"):
        rates_of("sft=0.001,sft=0.003")


def test_the_rate_of_an_unknown_method_is_refused() -> None:
    sizes = Path(__file__).parent.parent / "studies" / "results" / "abacus-sizes.csv"
    done = run(app, ["threshold", str(sizes), "--rate", "grop=0.003"])
    assert isinstance(done.exception, SpecError)
    assert str(done.exception) == "unknown method with rows 'grop': did you mean grpo or sft+grpo?"
