"""docs/python.md, executed: its blocks run one after the other, and say what the page says they say."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import capacity
from capacity.plan import protocols

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
SMALL = replace(
    protocols.PROTOCOLS["abacus"],
    steps=3, warmup_steps=0, prompts_per_step=2, samples_per_prompt=4, test_items=16, validation_items=8,
    temperatures=(0.0, 1.0),
)  # fmt: skip


def run_block(source: str, scope: dict[str, Any]) -> None:
    """Runs a block; a line that ends with "# → …" is an expression with that representation."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        said = re.search(r"  # → (.*)$", lines[(node.end_lineno or 1) - 1])
        if said is None or not isinstance(node, ast.Expr):
            assert said is None
            exec(compile(ast.Module([node], []), str(PAGE), "exec"), scope)
        else:
            value = eval(compile(ast.Expression(node.value), str(PAGE), "eval"), scope)
            assert repr(value) == said[1]


def test_the_page_shows_what_it_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocols.PROTOCOLS, "abacus", SMALL)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # a second worker would load everything once more
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        run_block(block, scope)
    result, study, swept = scope["result"], scope["study"], scope["swept"]
    # What is on the page is what is computed, and what is computed can be shown.
    assert repr(result) == f"<Compared: {result.verdict}>"
    assert result.to_json()["study"] == "my-study"
    for shown in (
        result,
        swept,
        study,
        scope["plan"],
        scope["found"],
        scope["done"],
        scope["answer"],
        scope["frontier"],
        scope["lengths"],
    ):
        assert re.fullmatch(r"<\w+: .+>", repr(shown))
        assert shown._repr_html_().startswith(("<table>", "<p>", "<ul>"))
    assert result.verdict in result._repr_html_()
    assert study.points["recipe"].notna().all()
    assert (tmp_path / "my-lora" / "adapter_config.json").is_file()


def test_every_name_of_the_library_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in capacity.__all__ if f"capacity.{name}" not in text] == []


def test_the_readme_shows_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocols.PROTOCOLS, "abacus", SMALL)
    (block,) = re.findall(r"```python\n(.*?)```", (PAGE.parents[1] / "README.md").read_text(), re.DOTALL)
    run_block(block, {"__name__": "__main__"})
    assert (tmp_path / "my-lora" / "adapter_config.json").is_file()
