"""Three studies that ship vary what no column of a points table told: sharing, rank, and u against groups."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from planned_studies import answered
from typer.testing import CliRunner

from capacity.errors import SpecError
from capacity_cli.app import app
from capacity_reports.report import build_report
from capacity_reports.views import Options

SHARING, RANK, U_GROUPS = "paper-figure-4-sharing-precision", "paper-figure-7-rank", "paper-figures-8-9-u-groups"
MIDPOINTS = {
    SHARING: lambda a: 20.0 if a.sharing == "tiled" else 60.0,
    RANK: lambda a: 20.0 * a.rank,
    U_GROUPS: lambda a: 20.0 * a.u**0.5,
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("studies")
    return {name: answered(name, folder / name, midpoint).folder for name, midpoint in MIDPOINTS.items()}


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


asked = cache(run)  # the studies do not change, and several tests ask the same


def answers(command: str, *arguments: object) -> Any:
    """What a command says, without the null calibration and with few replicates."""
    null = ("--null", "0") if command == "threshold" else ()
    return asked(command, *arguments, *null, "--replicates", "100")


def thresholds(*arguments: object) -> dict[str, Any]:
    return {curve["curve"]: curve for curve in answers("threshold", *arguments)["curves"] if curve["answer"]}


@cache
def page(source: Path) -> Any:
    """The page of a source in JSON, without the null calibration and with few replicates."""
    return json.loads(json.dumps(build_report([source], options=Options(null=0, replicates=10)).json()))


def test_a_threshold_for_each_rank(studies: dict[str, Path]) -> None:
    found = thresholds(studies[RANK])
    assert list(found) == ["grpo rank=1", "grpo rank=2", "grpo rank=4", "grpo rank=8"]
    assert [curve["sizes"] for curve in found.values()] == [[13, 49, 196]] * 4
    assert {curve["method"] for curve in found.values()} == {"grpo"}
    estimates = [curve["threshold"]["estimate"] or curve["sizes"][-1] for curve in found.values()]
    assert estimates == sorted(estimates)


def test_a_threshold_for_each_sharing_and_dtype(studies: dict[str, Path]) -> None:
    found = thresholds(studies[SHARING])
    assert list(found) == [
        f"grpo {dtype} sharing={sharing}" for dtype in ("bf16", "fp16", "fp32") for sharing in ("structured", "tiled")
    ]
    assert found["grpo fp32 sharing=tiled"]["sizes"] == [8, 16, 32, 64, 128, 252]
    one = thresholds(studies[SHARING], "--where", "storage_dtype=fp32", "--where", "sharing=tiled")
    assert list(one) == ["grpo"]
    assert one["grpo"]["accuracies"] == found["grpo fp32 sharing=tiled"]["accuracies"]
    assert list(thresholds(studies[SHARING], "--storage-dtype", "fp32")) == [
        "grpo sharing=structured", "grpo sharing=tiled"
    ]  # fmt: skip


def test_u_against_groups_is_told_apart_by_the_fewest_curves(studies: dict[str, Path]) -> None:
    """Vectors of 1, 2 and 4 entries make three curves of six sizes; numbers of groups would make six of three."""
    found = thresholds(studies[U_GROUPS])
    assert list(found) == ["grpo u=1", "grpo u=2", "grpo u=4"]
    assert [curve["sizes"] for curve in found.values()] == [
        [u * groups for groups in (1, 4, 14, 49, 98, 196)] for u in (1, 2, 4)
    ]
    assert list(thresholds(studies[U_GROUPS], "--where", "groups=49")) == ["grpo"]


def test_each_rate_was_chosen_on_validation_of_its_own_sharing(studies: dict[str, Path]) -> None:
    """Structured sharing wants a larger rate; taken together, one of the two would have no results at its best."""
    found = answers("bits", studies[SHARING])
    assert len(found["frontier"]) == 36
    rates = {(place["sharing"], place["learning_rate"]) for place in found["frontier"]}
    assert rates == {("tiled", 1e-5), ("structured", 1e-4)}


@pytest.mark.parametrize("name", MIDPOINTS)
def test_ratios_are_of_curves_that_differ_in_one_thing(studies: dict[str, Path], name: str) -> None:
    found = answers("threshold", studies[name])
    for ratio in found["ratios"]:
        first, second = (ratio[end].split() for end in ("numerator", "denominator"))
        assert sum(one != other for one, other in zip(first, second, strict=True)) == 1


@pytest.mark.parametrize(("name", "curves"), [(SHARING, 6), (RANK, 4), (U_GROUPS, 3)])
def test_bits_keep_every_recipe_apart(studies: dict[str, Path], name: str, curves: int) -> None:
    found = answers("bits", studies[name])
    assert {place["seeds"] for place in found["frontier"]} == {3}
    assert len({saving["test"] for saving in found["savings"]}) == curves
    assert {saving["test"] for saving in found["savings"]} == set(thresholds(studies[name]))


def test_bits_by_what_is_named_refuse_what_still_differs(studies: dict[str, Path]) -> None:
    with pytest.raises(SpecError, match=r"differ in adapter.rank, .*--by.*--where rank="):
        run("bits", studies[RANK], "--replicates", "100", "--by", "method")
    found = run("bits", studies[RANK], "--replicates", "100", "--by", "method", "--where", "rank=2")
    assert found["savings"] == []
    by_rank = run("bits", studies[RANK], "--replicates", "100", "--by", "method,rank")
    assert {saving["test"] for saving in by_rank["savings"]} == {f"grpo rank={rank}" for rank in (1, 2, 4, 8)}


@pytest.mark.parametrize("name", MIDPOINTS)
def test_the_page_has_thresholds_of_every_curve(studies: dict[str, Path], name: str) -> None:
    rows_of = tables(page(studies[name]), "thresholds")
    on_page = {row["curve"] for table, rows in rows_of for row in rows if table != "thresholds-other"}
    told = {label.rpartition(" ")[2] for label in thresholds(studies[name])}  # dtypes have figures of their own
    assert {label.rpartition(" ")[2] for label in on_page} == told


def tables(page: Any, start: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The tables of a page in JSON whose names begin so."""
    every = [table for section in page["sections"] for table in section["tables"]]
    return [(table["name"], table["rows"]) for table in every if table["name"].startswith(start)]


@pytest.mark.parametrize("name", MIDPOINTS)
def test_a_folder_and_its_own_table_give_the_same_answers(studies: dict[str, Path], name: str, tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    run("runs", studies[name], "--points", table)
    for command, of_the_folder in (("threshold", {"source", "checklist"}), ("bits", {"source"})):
        folder, own = (answers(command, source) for source in (studies[name], table))
        for key in folder.keys() - of_the_folder:
            assert own[key] == folder[key], key
    pages = [page(source) for source in (studies[name], table)]
    assert pages[1]["verdicts"] == pages[0]["verdicts"]
    for folder, own in zip(*(found["sections"] for found in pages), strict=True):
        if folder["name"] in ("accuracy", "accuracy-bits", "thresholds", "scaling", "frontier", "ablations", "rates"):
            assert folder["tables"] or folder["name"] == "scaling"
            assert own == folder
