"""The scripts on finished studies run, and print the numbers of the analysis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_studies import full_study

from capacity_analysis.compare.comparison import comparisons
from capacity_analysis.data.read import read_points
from capacity_analysis.words import minus

TOOLS = Path(__file__).parent.parent / "studies" / "tools"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fsync, os.fsync = os.fsync, lambda _: None
    methods, sizes = ("sft", "rft", "rft-online", "grpo"), ((13, 1), (28, 4))
    study = full_study(
        tmp_path_factory.mktemp("tools") / "study",
        methods=methods, sizes=sizes, seeds=2, items=40, tuned=False, shifts=(0.0, 4.0),
    )  # fmt: skip
    os.fsync = fsync
    return study.folder


def printed(tool: str, folder: Path) -> str:
    command = [sys.executable, str(TOOLS / tool), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_size_tables_hold_every_difference_and_the_controls(folder: Path) -> None:
    text = printed("size_tables.py", folder)
    for comparison in comparisons(read_points(str(folder))):
        for d in comparison.differences:
            assert minus(f"| {100 * d.estimate.value:+.1f} ({100 * (d.estimate.low or 0):+.1f} to ") in text
    assert "| abacus-0.9m | rft-online | 13 |" in text
    assert "Intervals: 95 %, fresh seeds and items, 2 seeds." in text


def test_predictions_are_held_against_cells_told_apart_by_style(folder: Path) -> None:
    text = printed("causal_verdicts.py", folder)
    (small, _) = comparisons(read_points(str(folder)))
    for compared in small.cells:
        if compared.cell.method != "rft-online":
            assert f"| {compared.cell.accuracy.percent()} |" in text
    assert "Shift, sft at 4 − sft at 0 bits of shift, points" in text
