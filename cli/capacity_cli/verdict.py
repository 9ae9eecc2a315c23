"""`capacity verdict`: results of other programs against each other, paired item by item."""

from pathlib import Path
from typing import Annotated

import typer

import capacity
from capacity_cli.options import Json


def verdict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Samples of lm-eval, logs of inspect_ai, or tables (CSV, Parquet, JSONL); NAME=SOURCE names an arm.",
        ),
    ],
    metric: Annotated[
        str | None, typer.Option(help="Which of several grades: acc, or NAME,FILTER.", show_default="the only one")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="How a table calls a column: item=question_id. Repeatable.", show_default="their own names"),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Largest difference that counts as none: 0.02 is 2 points.", show_default="not asked"),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of any false better or worse, at most.")] = 0.05,
    seed_spread: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of accuracy from seed to seed, for arms with one run: 0.008 is 0.8 points.",
            show_default="not known",
        ),
    ] = None,
    common: Annotated[bool, typer.Option("--common", help="Leave out items that not all arms answered.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Write it as Markdown, for a pull request.", show_default="none")
    ] = None,
    json: Json = False,
) -> None:
    """Compare arms that answered the same items, whoever trained and evaluated them; the first is the reference."""
    from capacity.runs.files import write_atomically
    from capacity_cli.choices import columns_choice
    from capacity_cli.output import print_blocks, print_json
    from capacity_reports.sections.verdict import verdict_markdown

    found = capacity.verdict(
        *sources, metric=metric, columns=columns_choice(column or []), margin=margin, alpha=alpha, common=common,
        seed_spread=seed_spread,
    )  # fmt: skip
    if markdown is not None:
        write_atomically(markdown, verdict_markdown(found.found))
    print_json(found.to_json()) if json else print_blocks(found.blocks)
