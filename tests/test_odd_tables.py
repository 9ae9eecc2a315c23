"""Tables that are right in form and odd in content. Nothing is decided by chance, and nothing left out in silence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import capacity
from capacity.errors import DataError, SpecError
from capacity_analysis.bits.cells import measured_cells
from capacity_analysis.checklist import _paired
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.cell_results import cell_results
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.data.where import where
from capacity_analysis.scaling.fit import ModelThreshold, fit_scaling
from capacity_analysis.statistics.crossed import Crossed
from capacity_cli.app import app
from capacity_reports.blocks import Column, Figure, Section, Table, uniquely_named
from capacity_reports.figures import method_style
from tests.test_verdict_command import check, table


def answers(arm: str, correct: list[int], **more: Any) -> list[dict[str, Any]]:
    return [{"arm": arm, "item": i, "correct": right, **more} for i, right in enumerate(correct)]


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, (SpecError, DataError)), done.output
    return str(done.exception)


def points(accuracies: dict[tuple[str, int], list[float]], **columns: Any) -> Points:
    """A points table: accuracies of seeds by method and size."""
    rows = [
        {"model": "m", "task": "t", "method": method, "trained_parameters": size, "seed": seed, "split": "test",
         "accuracy": accuracy, "update_bytes": 2 * size, **columns}
        for (method, size), own in accuracies.items()
        for seed, accuracy in enumerate(own)
    ]  # fmt: skip
    return from_frame(pd.DataFrame(rows), "table.csv")


# Results of other programs


def test_a_candidate_that_lacks_a_task_or_a_seed_is_refused(tmp_path: Path) -> None:
    right = [1, 0] * 50
    both = [r for task in ("gsm8k", "math") for seed in (0, 1, 2) for r in answers("a", right, task=task, seed=seed)]
    base = table(tmp_path / "base.csv", both)
    one_task = table(tmp_path / "task.csv", [r for r in both if r["task"] == "gsm8k"])
    two_seeds = table(tmp_path / "seeds.csv", [r for r in both if r["seed"] < 2])
    assert "lacks the task math, which the baseline has" in check(base, one_task)[1]["error"]
    assert "lacks the seeds 2 of gsm8k, which the baseline has" in check(base, two_seeds)[1]["error"]
    assert check(base, base)[1]["outcome"] == "identical"


def test_a_verdict_says_what_it_leaves_out_and_compares_what_it_shows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for arm, seeds, share in (("a", 5, 0.4), ("b", 2, 0.6)):
        for seed in range(seeds):
            rows += answers(arm, (rng.random(200) < share + 0.02 * seed).astype(int).tolist(), seed=seed, task="x")
    rows += answers("a", [1] * 20, seed=0, task="y")
    found = capacity.verdict(table(tmp_path / "t.csv", rows))
    (contrast,) = found.found.contrasts
    assert contrast.estimate.value == pytest.approx(contrast.after - contrast.before)
    assert contrast.left_out == 3
    said = " ".join(found.found.remarks)
    assert "b against a on x: 3 runs whose seed the other arm lacks are left out." in said
    assert "Left out, because not all arms answered them: y." in said


def test_one_cluster_or_one_item_decides_nothing(tmp_path: Path) -> None:
    rows = [*answers("a", [1, 0] * 50, cluster="c"), *answers("b", [1] * 100, cluster="c")]
    assert "has all 100 items in one cluster" in refused("verdict", table(tmp_path / "c.csv", rows))
    one = [*answers("a", [0]), *answers("b", [1])]
    assert "has one item, from which nothing follows" in refused("verdict", table(tmp_path / "i.csv", one))
    assert Crossed(0.0, 0.0, 0.0, 0, 0, 0).p_value(0.5) == 1.0


def test_rows_of_outcomes_that_are_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("item,correct,format_ok\n" + "".join(f"{i},1,0,\n" for i in range(10)))
    assert "row 1 has 4 fields and the header has 3" in refused("verdict", f"a={path}", f"b={path}")


def test_long_prompts_in_a_table_of_outcomes_are_read(tmp_path: Path) -> None:
    """Python's reader takes 128 KiB a field unless told otherwise."""
    rows = [{"arm": a, "item": i, "correct": i % 2, "prompt": f"{i} " * 100_000} for a in "ab" for i in range(4)]
    assert capacity.verdict(table(tmp_path / "t.csv", rows)).found.tasks[0].contents_known


def test_a_seed_that_is_written_as_nothing_is_none(tmp_path: Path) -> None:
    named = [
        str(table(tmp_path / f"{arm}.csv", answers(arm, [1, 0] * 20, seed=seed)))
        for arm, seed in (("a", "nan"), ("b", "NA"))
    ]
    assert capacity.verdict(*named).found.contrasts[0].pairing == "items, one run each"
    assert "seed 'inf' is not a whole number" in refused(
        "verdict", table(tmp_path / "c.csv", [*answers("a", [1, 0], seed="inf"), *answers("b", [1, 0], seed="1")])
    )


def test_results_of_another_split_are_imported(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", [{"item": i, "correct": i % 2} for i in range(10)])
    sets = ("method=sft", "trained_parameters=13", "split=validation", "study=mine")
    arguments = [word for one in sets for word in ("--set", one)]
    done = CliRunner().invoke(app, ["import", str(source), "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "out").glob("*.csv")
    frame = read_points(str(written)).frame
    assert (frame["split"].tolist(), frame["study"].tolist()) == (["validation"], ["mine"])


# Points tables


def test_arms_that_answered_other_items_are_not_compared() -> None:
    accuracies = {("sft", 1): [0.4, 0.5], ("sft", 10): [0.6, 0.7], ("grpo", 1): [0.5, 0.6], ("grpo", 10): [0.7, 0.8]}
    frame = points(accuracies, n_items=100).frame.copy()
    frame["n_correct"] = (100 * frame["accuracy"]).round().astype("Int64")
    frame["items"] = ["a" * 16 if method == "sft" else "b" * 16 for method in frame["method"]]
    for ask in (capacity.thresholds, capacity.bits):
        with pytest.raises(SpecError, match=r"row 5 \(grpo\) answered other items than row 1 \(sft\), so they cannot"):
            ask(frame)


def test_the_checklist_calls_arms_paired_only_if_all_answered_the_same_items() -> None:
    message = read_points(str(Path(__file__).parent.parent / "studies" / "results" / "abacus-message.csv"))
    assert _paired(message) == ("yes", "the same 1,024 items for every arm")
    assert message.outcomes is not None
    outcomes = message.outcomes.copy()
    outcomes[int(np.flatnonzero(message.frame["trained_parameters"] > 0)[0]), 0] = np.nan
    message.__dict__["outcomes"] = outcomes
    assert _paired(message) == ("no", "arms answered different items")
    untrained = message.where(message.frame["trained_parameters"] == 0)
    assert _paired(untrained) == ("not measured", "no trained runs")


def test_seeds_that_agree_have_no_spread_whatever_their_last_digit() -> None:
    same = points({("sft", 10): [0.1] * 3, ("sft", 100): [0.3] * 3, ("grpo", 10): [0.1] * 3})
    assert [cell.accuracy.low for cell in cell_results(same)] == [None] * 3
    counted = points({("sft", 10): [0.1] * 3, ("sft", 100): [0.3] * 3}, n_items=1000, samples_per_item=1)
    assert measured_cells(counted).dispersion is None


def test_three_seeds_that_agree_are_not_called_one() -> None:
    curve = {("sft", 10**k): [a] * 3 for k, a in enumerate((0.1, 0.2, 0.5, 0.7, 0.8))}
    rising = {("grpo", 10**k): [a] * 3 for k, a in enumerate((0.1, 0.3, 0.6, 0.75, 0.8))}
    found = capacity.thresholds(points({**curve, **rising}, n_items=1000, samples_per_item=1).frame, target=0.4, null=0)
    assert all(not found.study.of_one_seed(ratio) for ratio in found.study.ratios)
    assert "one seed" not in " ".join([*found.study.sentences(), *found.study.unsupported])


def test_bits_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    rows = points({(m, s): rng.uniform(0.3, 0.7, 4).tolist() for m in ("sft", "grpo") for s in (10, 20, 40, 80)}).frame
    plain, shuffled = (
        capacity.bits(frame, replicates=200).to_json() for frame in (rows, rows.sample(frac=1, random_state=3))
    )
    key = {"savings": ("test", "anchor"), "frontier": ("method", "trained_parameters")}
    for name, by in key.items():
        one, other = (sorted(f[name], key=lambda row: tuple(map(str, map(row.get, by)))) for f in (plain, shuffled))
        assert json.dumps(one) == json.dumps(other)


def test_a_rate_is_chosen_as_it_is_written() -> None:
    table = points({("sft", 10): [0.4, 0.5]}, learning_rate=10**-2.5)
    assert len(where(table, ["learning_rate=0.00316228"]).frame) == 2


def test_published_figures_refuse_what_is_for_one_curve() -> None:
    said = refused("threshold", "reference:tinylora-table2", "--scaling")
    assert said.endswith("--scaling is for the curves of one task: choose it with --where task=gsm8k")


def test_a_scaling_law_without_a_maximum_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search fails for a few of thousands of tables; a report goes on without the law."""

    def singular(*_: Any) -> None:
        raise np.linalg.LinAlgError

    monkeypatch.setattr("capacity_analysis.scaling.fit.interval_regression", singular)
    thresholds = [
        ModelThreshold(name, size, low, 2 * low) for name, size, low in (("a", 1e6, 10), ("b", 1e7, 90), ("c", 1e8, 20))
    ]
    found = fit_scaling(thresholds)
    assert isinstance(found, Absent)
    assert found.reason == "the likelihood of the line has no maximum that can be found"


# Pages


def test_blocks_of_one_name_get_numbers() -> None:
    columns = (Column("x", "x"),)

    def figure(name: str) -> Figure:
        return Figure(name, "", "", "", Table(name, "", columns, ()), lambda _: None)

    sections = [Section("a", "", (figure("accuracy"), figure("accuracy"))), Section("b", "", (figure(""), figure("")))]
    found = [block for section in uniquely_named(sections) for block in section.blocks]
    assert [block.name for block in found] == ["accuracy", "accuracy-2", "-2", "-3"]  # type: ignore[union-attr]
    assert [block.data.name for block in found] == [block.name for block in found]  # type: ignore[union-attr]


def test_unknown_methods_of_the_same_letters_are_drawn_apart() -> None:
    names = ("dpo", "orpo", "kto", "rloo", "expert-iteration")
    assert len({method_style(name)[::2] + method_style(name)[:2] for name in names}) == len(names)
