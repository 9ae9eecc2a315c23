"""Each sentence of pages, help and public docstrings has at most 25 words, and no banned phrase."""

import pytest
from plain_english import Text, all_texts, sentences, words


def test_every_text_is_plain() -> None:
    assert [fault for text in all_texts() for fault in text.faults()] == []


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


def test_banned_phrases_are_whole_words() -> None:
    faults = Text("page", ("The right answers count.", "What handles Ctrl-C is said.")).faults()
    assert faults == ["page: 'right answers': The right answers count."]
