import subprocess
import sys
from pathlib import Path

import pytest

from capacity.errors import SpecError
from capacity_analysis.data.published import NAMES, REMARKS, crossing_words, first_crossings, read_raw, reference_points
from capacity_analysis.data.read import read_points

FULL = None


@pytest.mark.parametrize(
    ("model", "task", "expected"),
    [
        ("Qwen2.5-3B-Instruct", "gsm8k", (63, 63, 8064)),
        ("Qwen2.5-7B-Instruct", "gsm8k", ("≤13", "≤13", "≤13")),
        ("Qwen2.5-Math-7B", "gsm8k", (392, 392, FULL)),
        ("Qwen2.5-3B-Instruct", "average", (252, 252, FULL)),
        ("Qwen2.5-7B-Instruct", "average", ("≤13", 196, 100352)),
    ],
)
def test_first_crossings_that_follow_from_table_2(model, task, expected):
    crossings = [c for c in first_crossings(reference_points("tinylora-table2")) if (c.model, c.task) == (model, task)]
    assert [c.gain for c in crossings] == [0.5, 0.8, 0.95]
    found = tuple(f"≤{c.trained_parameters}" if c.censored == "left" else c.trained_parameters for c in crossings)
    assert found == expected
    assert [c.censored == "right" for c in crossings] == [value is FULL for value in expected]


def test_tables_read_as_points_with_shares_and_without_counts():
    table = read_points("reference:tinylora-table2")
    assert table.outcomes is None
    assert len(table.frame) == 22 * 7
    assert set(table.frame["method"]) == {"base", "grpo"}
    assert table.frame["n_items"].isna().all()
    row = table.frame[(table.frame["model"] == "Qwen2.5-7B-Instruct") & (table.frame["trained_parameters"] == 13)]
    assert dict(zip(row["task"], row["accuracy"], strict=True))["gsm8k"] == pytest.approx(0.918)
    text = read_points("reference:tinylora-text").frame
    assert set(text["protocol"]) == {"gsm8k-text", "gsm8k-appendix"}
    assert text["model_parameters"].isna().all()


def test_figures_are_those_of_the_paper():
    """Sums of the columns, so that no figure changes unnoticed."""
    table = read_raw("tinylora-table2")
    assert table[["gsm8k", "math500", "average"]].sum().tolist() == pytest.approx([1895.1, 1558.5, 1053.2], abs=0.05)
    assert read_raw("tinylora-text")["accuracy"].sum() == pytest.approx(999.7)


def test_contradictions_are_told():
    assert set(REMARKS) == set(NAMES)
    for name in ("tinylora-table2", "tinylora-text"):
        assert "2602.04118" in REMARKS[name][0]
        assert any("76" in remark for remark in REMARKS[name])


def test_the_comparison_of_peft_has_counts_and_one_seed():
    raw = read_raw("peft-metamathqa")
    assert (len(raw), int(raw["n_correct"].sum())) == (63, 30616)
    table = read_points("reference:peft-metamathqa")
    assert set(table.frame["method"]) == {"sft"}
    assert set(table.frame["seed"]) == {0}
    by_adapter = table.frame.set_index("adapter")["accuracy"]
    assert by_adapter["tinylora weight-tying"] == pytest.approx(0.004548900682335102)
    assert by_adapter["lora rank32"] == pytest.approx(0.4783927217589083)
    assert 100 * by_adapter["ia3"] == pytest.approx(31.1, abs=0.05)
    assert 100 * by_adapter["ia3 lr_0.001"] == pytest.approx(39.8, abs=0.05)


def test_the_reproduction_has_counts_under_two_grades():
    raw = read_raw("tinylora-reproduction")
    assert raw[["hash_correct", "flexible_correct"]].sum().tolist() == [14273, 19105]
    table = read_points("reference:tinylora-reproduction").frame
    assert len(table) == 2 * 17
    base = table[table["method"] == "base"].set_index("protocol")["accuracy"]
    assert base.to_dict() == pytest.approx({"hash": 0.6959818043972706, "flexible": 0.8544351781652767})
    best = table[(table["protocol"] == "flexible") & (table["adapter"] == "tinylora u=16 n_tie=8")]
    assert (int(best["trained_parameters"].iloc[0]), round(100 * best["accuracy"].iloc[0], 2)) == (504, 86.2)


def test_the_table_of_published_claims_is_what_its_tool_prints():
    tool = Path(__file__).parent.parent / "studies" / "tools" / "published_claims.py"
    printed = subprocess.run([sys.executable, str(tool)], capture_output=True, text=True, check=True).stdout
    assert "+3.6 (+1.3 to +5.9)" in printed  # 1.96 · √(.918·.082/1319 + .882·.118/1319) = 2.3 points
    assert printed in (Path(__file__).parent.parent / "docs" / "bits.md").read_text(encoding="utf-8")


def test_unknown_references_are_refused():
    with pytest.raises(SpecError, match="did you mean tinylora-t"):
        read_points("reference:tinylora-table3")
    with pytest.raises(SpecError, match="unknown reference"):
        read_raw("elsewhere")


def test_crossings_in_words():
    found = first_crossings(read_points("reference:tinylora-table2"))
    words = [crossing_words(c) for c in found if (c.model, c.task) == ("Qwen2.5-7B-Instruct", "average")]
    assert words == ["≤ 13 (47.8)", "196 (52.2)", "100,352 (54.5)"]
    assert any(crossing_words(c).startswith("> ") for c in found if c.model == "Qwen2.5-Math-7B" and c.task == "gsm8k")
