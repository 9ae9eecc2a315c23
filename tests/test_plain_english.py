"""Each sentence of pages, help and public docstrings has at most 25 words, and no banned phrase."""

import pytest
from plain_english import all_texts, sentences, words

# Texts that are still to be mended. A text that is clean leaves this list, and no text enters it.
UNCLEAN = {
    "docs/bits.md",
    "docs/ci.md",
    "docs/commands.md",
    "docs/description-lengths.md",
    "docs/reports.md",
    "docs/thresholds.md",
    "capacity threshold --help",
    "capacity report --help",
    "analysis/capacity_analysis/bits/cells.py",
    "analysis/capacity_analysis/bits/frontier.py",
    "analysis/capacity_analysis/bits/savings.py",
    "analysis/capacity_analysis/check/alarms.py",
    "analysis/capacity_analysis/check/baseline.py",
    "analysis/capacity_analysis/check/judge.py",
    "analysis/capacity_analysis/check/matching.py",
    "analysis/capacity_analysis/compare/paired.py",
    "analysis/capacity_analysis/data/cell_results.py",
    "analysis/capacity_analysis/data/curves.py",
    "analysis/capacity_analysis/data/read.py",
    "analysis/capacity_analysis/data/table.py",
    "analysis/capacity_analysis/data/tuning.py",
    "analysis/capacity_analysis/lengths/demonstrations.py",
    "analysis/capacity_analysis/lengths/rewards.py",
    "analysis/capacity_analysis/scaling/fit.py",
    "analysis/capacity_analysis/statistics/bjontegaard.py",
    "analysis/capacity_analysis/statistics/estimate.py",
    "analysis/capacity_analysis/statistics/hill.py",
    "analysis/capacity_analysis/statistics/hill_profile.py",
    "analysis/capacity_analysis/statistics/monotone.py",
    "analysis/capacity_analysis/statistics/resampling.py",
    "analysis/capacity_analysis/statistics/seed_tests.py",
    "analysis/capacity_analysis/statistics/spread.py",
    "analysis/capacity_analysis/thresholds/estimators.py",
    "analysis/capacity_analysis/thresholds/null_calibration.py",
    "analysis/capacity_analysis/thresholds/ratios.py",
    "analysis/capacity_analysis/thresholds/shift.py",
    "capacity/sampling/evaluate.py",
    "capacity/sampling/likelihood.py",
    "capacity/sampling/prompts.py",
    "capacity/sampling/vllm/freshness.py",
    "capacity/sampling/vllm/server.py",
    "capacity/studies/requantise.py",
    "cli/capacity_cli/app.py",
    "reports/capacity_reports/figures.py",
}


def test_every_text_is_plain_or_on_the_list() -> None:
    faults = [fault for text in all_texts() if text.name not in UNCLEAN for fault in text.faults()]
    assert faults == []


def test_the_list_holds_no_text_that_is_clean() -> None:
    unclean = {text.name for text in all_texts() if text.faults()}
    assert sorted(UNCLEAN - unclean) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One sentence. Another one! A third?", ["One sentence.", "Another one!", "A third?"]),
        ("An interval. It is wide.", ["An interval.", "It is wide."]),
        ("A line\nthat goes on.", ["A line that goes on."]),
        ("# A heading\nA sentence.", ["# A heading", "A sentence."]),
        ("An item:\n- one\n- two", ["An item:", "- one", "- two"]),
        ("Numbers, e.g. 0.9 and 2.5, end no sentence.", ["Numbers, e.g. 0.9 and 2.5, end no sentence."]),
        ("Before.\n\n```\ncode. More code.\n\ncode\n```\nAfter.", ["Before.", "After."]),
        ("| a | table. |\n|---|---|\nAfter.", ["After."]),
        (
            "Raises:\n    ValueError: not a number.\n    KeyError: not a key.",
            ["Raises:", "ValueError: not a number.", "KeyError: not a key."],
        ),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert list(sentences(text)) == expected


def test_code_targets_and_citations_are_not_counted() -> None:
    (found,) = sentences(
        "See `capacity plan --budget 13` in [the page](docs/plan.md#a-b) (TinyLoRA, arXiv 2602.04118)."
    )
    assert words(found) == len(["See", "in", "the", "page"])
