"""What a terminal shows of the blocks of a report: names and numbers stay whole at any width."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from capacity_cli.app import app
from capacity_reports.blocks import Column, Example, Figure, Section, Table, Text
from capacity_reports.render.terminal import show

NAME = "abacus-0.9m on a task with a long name"
SAID = "what to know of this row, in a sentence or two that take more room than a terminal of eighty columns has"
TABLE = Table(
    "t",
    "Sizes",
    (Column("k", "model, task"), Column("n", "trained", "count"), Column("p", "%", "percent"), Column("w", "why")),
    ((NAME, 1_234_567, 0.5, SAID), ("b [bold]", None, 1.0, "")),
    note="A note.",
)


def shown(*blocks, width=80, terminal=True):
    file = io.StringIO()
    show(blocks, Console(file=file, width=width, force_terminal=terminal, no_color=True, color_system=None))
    return file.getvalue()


def test_every_block_is_shown_as_text_except_tables_for_programs():
    columns = (Column("method", "method"), Column("bits", "bits of [brackets]", "number"))
    table = Table("t", "Bits", columns, (("sft", 1234.5), ("[red]", None)), "A note.")
    hidden = Table("h", "Hidden", columns, (), exported_only=True)
    figure = Figure("f", "Chart", "A caption.", "Words.", Table("f", "Data", columns, (("grpo", 7.0),)), lambda _: None)
    blocks = (
        Text(("one", "two"), bullets=True),
        Text(()),
        table,
        hidden,
        figure,
        Example("Item", "1+2=?", (("sft", "3", True),)),
        Section("s", "Findings", (Text(("So.",), strong=True), Text(("Thus.",)))),
        Section("n", "Rates", (), absent="there are none"),
    )
    assert [line.rstrip() for line in shown(*blocks, width=60).splitlines()] == [
        "- one",
        "- two",
        "",
        "Bits",
        "method  bits of [brackets]",
        "sft                  1,234",
        "[red]                    –",
        "A note.",
        "",
        "Chart",
        "A caption.",
        "method  bits of [brackets]",
        "grpo                     7",
        "",
        "Item",
        "1+2=?",
        "sft (correct): 3",
        "",
        "Findings",
        "So.",
        "",
        "Thus.",
        "",
        "Rates",
        "Not available: there are none",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_a_table_folds_its_prose_and_nothing_else(width):
    lines = shown(TABLE, width=width).splitlines()
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith(NAME))
    assert "1,234,567   50.0" in row
    assert any(line.startswith("b [bold]") and " –  100.0" in line for line in lines)
    folded = [line[len(NAME) :].replace("1,234,567   50.0", "") for line in lines if line not in ("Sizes", "A note.")]
    assert SAID in " ".join(" ".join(folded).split())


def test_nothing_is_cut_where_a_terminal_is_too_narrow():
    text = shown(TABLE, width=30)
    assert any(line.startswith(NAME) and "1,234,567" in line for line in text.splitlines())
    assert "…" not in text


def test_an_interval_is_never_folded():
    columns = (Column("k", "k"), Column("v", "v", "number", ends=("l", "h")), Column("l", "l", "number"),
               Column("h", "h", "number"))  # fmt: skip
    table = Table("t", "T", columns, (("a", 1234567.0, 1000000.0, 2345678.0),))
    assert "a  1,234,567 (1,000,000 to 2,345,678)" in shown(table, width=20)


def test_an_open_interval_keeps_the_end_that_is_known():
    columns = (Column("k", "k"), Column("v", "v", "number", ends=("l", "h")), Column("l", "l", "number", absent="0"),
               Column("h", "h", "number", absent="∞"))  # fmt: skip
    table = Table("t", "T", columns, (("a", 5.0, None, 8.0), ("b", None, 5.0, None), ("c", 5.0, None, None)))
    assert [row[1] for row in table.texts()] == ["5 (0 to 8)", "– (5 to ∞)", "5"]


def test_a_column_without_values_is_not_shown_unless_that_says_something():
    columns = (Column("a", "a"), Column("b", "b"), Column("c", "c"), Column("d", "d", absent="never"))
    table = Table("t", "T", columns, (("x", None, "", None),))
    assert [c.key for c in table.shown] == ["a", "d"]
    assert table.texts() == [["x", "never"]]
    assert [c.key for c in Table("t", "T", columns, ()).shown] == ["a", "b", "c", "d"]


def test_a_pipe_gets_whole_lines():
    lines = shown(TABLE, Text((SAID,)), width=40, terminal=False).splitlines()
    assert any(line.startswith(NAME) and line.endswith(SAID) for line in lines)
    assert lines[-1] == SAID


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "--model", "qwen2.5-7b", "--budget", "13", "--modules"],
        ["models"],
        ["models", "qwen2.5-7b"],
        ["sweep", str(Path(__file__).parent.parent / "studies" / "abacus-sizes.toml"), "--dry-run"],
        ["threshold", "reference:tinylora-table2"],
        ["threshold", "reference:tinylora-table2", "--target", "0.9", "--task", "gsm8k", "--null", "0"],
        ["bits", "reference:tinylora-table2", "--task", "gsm8k", "--replicates", "100"],
    ],
    ids=lambda command: " ".join(command[:2])[-30:],
)
def test_piped_output_is_the_same_at_any_width(command):
    narrow, wide = (CliRunner().invoke(app, command, env={"COLUMNS": width}) for width in ("20", "300"))
    assert (narrow.exit_code, wide.exit_code) == (0, 0), narrow.output
    assert narrow.stdout == wide.stdout
    assert "…" not in narrow.stdout
