"""What a terminal shows of the blocks of a report."""

from rich.console import Console

from capacity_reports.blocks import Column, Example, Figure, Table, Text
from capacity_reports.render.terminal import view


def test_every_block_is_shown_as_text_except_tables_for_programs():
    columns = (Column("method", "method"), Column("bits", "bits of [brackets]", "number"))
    table = Table("t", "Bits", columns, (("sft", 1234.5), ("[red]", None)), "A note.")
    hidden = Table("h", "Hidden", columns, (), exported_only=True)
    figure = Figure("f", "Chart", "A caption.", "Words.", Table("f", "Data", columns, (("grpo", 7.0),)), lambda _: None)
    blocks = [
        Text(("one", "two"), bullets=True),
        table,
        hidden,
        figure,
        Example("Item", "1+2=?", (("sft", "3", True),)),
    ]
    console = Console(width=60)
    with console.capture() as capture:
        console.print(view(blocks), highlight=False)
    assert [line.rstrip() for line in capture.get().splitlines() if line.strip()] == [
        "- one",
        "- two",
        "Bits",
        "method  bits of [brackets]",
        "sft                  1,234",
        "[red]                    –",
        "A note.",
        "Chart",
        "A caption.",
        "method  bits of [brackets]",
        "grpo                     7",
        "Item",
        "1+2=?",
        "sft (right): 3",
    ]
