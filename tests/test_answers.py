"""What commands print first: at most five lines of 80 columns and one table, whose names are whole."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import capacity
from capacity.library.answers import LINES, several
from capacity.library.answers.bits import rates_answer
from capacity.library.answers.check import check_answer
from capacity.library.answers.lengths import lengths_answer
from capacity_cli.app import app
from capacity_reports.blocks import Block, Table, Text
from capacity_reports.decided import decided_together
from capacity_reports.render.terminal import show

SIZES = Path(__file__).parent.parent / "studies" / "results" / "abacus-sizes.csv"


def on_terminal(blocks: Sequence[Block], width: int = 80) -> str:
    file = io.StringIO()
    show(blocks, Console(file=file, width=width, force_terminal=True, no_color=True, color_system=None))
    return file.getvalue()


def check_form(blocks: Sequence[Block]) -> tuple[list[str], Table]:
    """The lines of an answer and its table, if the answer fits a terminal of 80 columns."""
    said, table = blocks
    assert isinstance(said, Text)
    assert isinstance(table, Table)
    assert len(on_terminal([said]).splitlines()) <= LINES
    lines = on_terminal([table]).splitlines()
    assert max(map(len, lines)) <= 80
    for row in table.texts():  # each row is one line
        assert any(line.split() == " ".join(row).split() for line in lines), row
    return list(said.lines), table


@pytest.fixture(scope="module")
def found() -> Any:
    return capacity.thresholds(SIZES, null=0)


def test_threshold_answers_the_question_of_each_model_first(found: Any) -> None:
    lines, table = check_form(found.answer)
    assert lines[0] == "Asked: the smallest update that reaches 80 % of the gain, in parameters."
    assert [line.partition(":")[0] for line in lines[1:4]] == ["abacus-0.2m", "abacus-0.9m", "abacus-3m"]
    assert all("sft" in line and "grpo" in line for line in lines[1:4])
    decided = [r for r in found.study.headlines if (r.low or 0) > 1 or (r.high is not None and r.high < 1)]
    told = f"Pairs whose interval excludes 1×: {len(decided)} of 21. Of these 3 pairs, judged together: 1."
    assert lines[4] == told  # the ratio on abacus-0.9m excludes 1 at 98.3 % too
    for line, ratio in zip(lines[1:4], (r for r in found.study.headlines if r.denominator == "grpo"), strict=False):
        assert line.endswith("the parameters of grpo.") == (ratio in decided)
        assert ("is not decided" in line) == (ratio not in decided)
    assert len(table.rows) == 12
    assert "95 %" in table.note


def test_bits_answers_with_the_frontier() -> None:
    found = capacity.bits(SIZES, where=["model=abacus-3m"], replicates=100)
    lines, table = check_form(found.answer)
    on = [place for place in found.places if place.on_frontier]
    assert lines[0] == f"On the frontier of accuracy over bytes: {len(on)} of {len(found.places)} updates."
    assert "sft" in lines[1]
    assert len(table.rows) == len(on)


def test_bits_tells_cells_of_one_size_apart_and_leads_with_the_methods() -> None:
    found = capacity.bits(
        SIZES.parent / "abacus-message.csv", where=["trained_parameters=13", "model=abacus-0.9m"], replicates=100
    )
    _, table = check_form(found.answer)
    grpo = [row[2:4] for row in table.rows if row[1] == "grpo"]
    assert grpo == [("tinylora", 26), ("tinylora, bits=4", 33), ("tinylora, bits=8", 39), ("tinylora, bits=12", 46)]
    both = capacity.bits(SIZES.parent / "abacus-message.csv", replicates=100)
    lines, _ = check_form(both.answer)
    assert lines[1].startswith("abacus-0.9m, chosen P bits=4: sft : grpo is not decided, ")
    assert {("method",), ("adapter.choice",), ("adapter.choice.bits",)} <= {saving.differ for saving in both.saved}


def test_threshold_leads_with_the_methods_where_curves_differ_in_more() -> None:
    found = capacity.thresholds(SIZES.parent / "abacus-message.csv", target=0.6, null=0)
    lines, _ = check_form(found.answer)
    assert lines[1].startswith("abacus-0.9m, chosen P bits=4: sft : grpo is not decided, ")
    assert lines[2].startswith("abacus-0.2m, chosen P")


def rate(dtype: str, total: float, low: float | None, method: str = "sft") -> dict[str, Any]:
    return {
        "model": "abacus-0.2m", "method": method, "differs": "", "trained_parameters": 13, "storage_dtype": dtype,
        "total_bytes": total, "change": 0.0, "change_low": low, "change_high": 0.02, "interval": "95 %",
    }  # fmt: skip


def test_updates_stored_anew_end_with_the_smallest_dtype_that_is_enough() -> None:
    rates = [
        rate("fp32", 892, 0.0),
        rate("int8", 855, -0.006),
        rate("int4", 849, -0.034),
        rate("int4", 849, -0.01, "grpo"),
    ]
    lines, table = check_form(rates_answer(rates))
    assert lines == [
        "int8 is enough: 855 bytes with its header, loses less than 0.6 points in its one cell.",
        "int4 is the smallest: 849 bytes with its header, loses less than 3.4 points in each of 2 cells.",
    ]
    assert len(table.rows) == 4


def test_no_dtype_is_enough_where_none_is_shown_to_be() -> None:
    (said, _) = rates_answer([rate("fp32", 892, -0.02), rate("int4", 849, None)])
    assert isinstance(said, Text)
    assert said.lines == (
        "No dtype is shown to lose less than 1 point of accuracy in every cell.",
        "int4 is the smallest: 849 bytes with its header, loses an unknown share of the accuracy in its one cell.",
    )


def test_more_lines_than_there_is_room_for_are_counted() -> None:
    assert several(["a", "b"], 2, "models") == ["a", "b"]
    assert several(["a", "b", "c"], 2, "models") == ["a", "2 more models stand in the details."]


def test_a_check_answers_with_its_verdict() -> None:
    sizes = [SimpleNamespace(before=0.5, after=0.4), SimpleNamespace(before=0.7, after=0.6)]
    change = SimpleNamespace(estimate=-0.1, low=-0.15, high=-0.05)
    curve = SimpleNamespace(name="grpo", outcome="worse", sizes=sizes, change=change)
    check: Any = SimpleNamespace(verdict="Worse: grpo.", environment="torch 2.12.0 → 2.13.0", curves=[curve])
    lines, table = check_form(check_answer(check))
    assert lines == ["Worse: grpo.", "Environment since the baseline: torch 2.12.0 → 2.13.0."]
    assert table.texts() == [["grpo", "worse", "60.0", "50.0", "−10.0 (−15.0 to −5.0)"]]


def test_lengths_name_what_is_learnt_what_is_a_cap_and_what_is_stored() -> None:
    value = SimpleNamespace(estimate=417.0, low=-3143.0, high=3977.0)
    payload = SimpleNamespace(estimate=208.0)
    cells = [
        SimpleNamespace(
            model="m",
            method=method,
            trained_parameters=13,
            differs="",
            seeds=(0, 1),
            values={key: value, "payload_bits": payload},
        )
        for method, key in (("sft", "excess_bits"), ("grpo", "reward_live_bits"), ("rft", "other"))
    ]
    lines, _ = check_form(lengths_answer(SimpleNamespace(cells=cells)))  # type: ignore[arg-type]
    assert lines == [
        "sft 13: 417 bits learnt from demonstrations; its update holds 208 bits.",
        "grpo 13: 417 bits of rewards at most; its update holds 208 bits.",
        "rft 13: neither bits learnt nor bits of rewards are measured; its update holds 208 bits.",
    ]


def test_details_follow_the_answer() -> None:
    plain, full = (
        CliRunner().invoke(app, ["threshold", str(SIZES), "--where", "model=abacus-3m", "--null", "0", *more]).stdout
        for more in ((), ("--details",))
    )
    answer = plain.partition("\nAll tables and remarks: --details.")[0]
    assert "Checklist" not in plain
    assert full.startswith(answer)
    assert "Checklist" in full


def test_more_ratios_that_are_judged_together_ask_more_of_each(found: Any) -> None:
    """The interval of sft : grpo on abacus-0.9m excludes 1 at 98.3 %, and includes it at 99 %."""
    ratio = next(r for r in found.study.headlines if (r.model, r.numerator) == ("abacus-0.9m", "sft"))
    assert decided_together([(found.study, ratio)] * 3) == [True] * 3
    assert decided_together([(found.study, ratio)] * 6) == [False] * 6
