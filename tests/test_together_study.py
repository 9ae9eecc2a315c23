"""`--together` in whole studies: the same runs, in fewer passes."""

from pathlib import Path
from typing import Any

import pytest

import capacity
from capacity.errors import SpecError

STUDY: dict[str, Any] = {
    "name": "together",
    "grids": [
        {
            "models": ["abacus-0.2m"],
            "methods": ["sft", "grpo"],
            "sizes": [{"budget": 100}],
            "seeds": 2,
            "rates": 0.01,
            "split": "validation",
            "protocol": {
                "steps": 2, "warmup_steps": 0, "prompts_per_step": 4, "samples_per_prompt": 4,
                "validation_items": 32, "temperatures": [0.5, 1.0],
            },
        }
    ],
}  # fmt: skip


def outcomes(folder: Path) -> dict[str, str]:
    """What each run answered, by its folder, without the digits in which rounding shows."""
    return {path.parent.name: path.read_text() for path in sorted(folder.glob("runs/*/outcomes.jsonl"))}


def test_a_study_trained_together_is_the_study(tmp_path: Path) -> None:
    alone = capacity.sweep(STUDY, out=tmp_path / "alone", workers=1)
    both = capacity.sweep({**STUDY, "together": 3}, out=tmp_path / "both", workers=1)
    assert (len(alone.made.runs), len(both.made.runs), both.made.failed) == (9, 9, 0)
    assert outcomes(tmp_path / "alone") == outcomes(tmp_path / "both")


def test_what_cannot_train_together_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--together is for --trainer loop"):
        capacity.sweep(STUDY, out=tmp_path / "trl", together=2, trainer="trl")
    with pytest.raises(SpecError, match=r"--together 5000 does not fit: at most \d+ runs like"):
        capacity.sweep(STUDY, out=tmp_path / "many", together=5000)
    assert not list(tmp_path.glob("*/runs/*"))
