"""docs/python.md and docs/your-trainer.md, executed: their blocks run one after the other and say what they say."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import PROTOCOL

import capacity
from capacity.plan import protocols

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
TRAINER = PAGE.with_name("your-trainer.md")
SMALL = replace(PROTOCOL, test_items=16)


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


def test_stock_trainers_train_an_update_by_the_lines_of_their_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    trained = {}
    for block in re.findall(r"```python\n(.*?)```", TRAINER.read_text(), re.DOTALL):
        run_block(block, scope)
        trained[str(scope["trainer"].args.output_dir)] = scope["adapted"].vector()
    assert {type(scope["trainer"]).__module__.partition(".")[0]} == {"trl"}
    for name, vector in (("sft", trained["sft-run"]), ("grpo", trained["grpo-run"])):
        stored = capacity.load(f"{name}.safetensors", device="cpu").adapted
        assert stored is not None
        assert float(vector.norm()) > 0.01  # it starts at 0
        assert bool((stored.vector() == vector).all())
    found, table = scope["found"], scope["table"]
    assert {arm: own["correct"].mean() for arm, own in table.groupby("arm")} == {
        name: found[name].to_json()["accuracy"] for name in found
    }
    assert scope["difference"].value == pytest.approx(
        found["grpo"].to_json()["accuracy"] - found["sft"].to_json()["accuracy"]
    )


def test_what_cannot_be_saved_ends_in_one_line(tmp_path: Path) -> None:
    from capacity.errors import CapacityError

    adapted = capacity.attach(capacity.load(model="abacus-0.2m", device="cpu").model, 13)
    taken = tmp_path / "taken"
    taken.touch()
    for path, model, dtype, said in (
        (taken, "abacus-0.2m", "bf16", "taken exists already"),
        (tmp_path / "no" / "file", "abacus-0.2m", "bf16", "there is no folder"),
        (tmp_path / "file", "abakus", "bf16", "unknown model 'abakus': did you mean abacus"),
        (tmp_path / "file", "abacus-0.2m", "bf61", "unknown storage dtype 'bf61': did you mean bf16"),
    ):
        with pytest.raises(CapacityError, match=said):
            capacity.save(adapted, path, model, dtype=dtype)
    assert list(tmp_path.iterdir()) == [taken]


def test_every_name_of_the_library_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in capacity.__all__ if f"capacity.{name}" not in text] == []


def test_the_readme_shows_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(protocols.PROTOCOLS, "abacus", SMALL)
    (block,) = re.findall(r"```python\n(.*?)```", (PAGE.parents[1] / "README.md").read_text(), re.DOTALL)
    run_block(block, {"__name__": "__main__"})
    assert (tmp_path / "my-lora" / "adapter_config.json").is_file()


def test_an_update_on_rounded_weights_is_saved_and_loaded(tmp_path: Path) -> None:
    """Its factors and its fingerprint are those of the weights in memory, not those of the checkpoint."""
    name = "abacus-0.2m?dtype=bf16"
    adapted = capacity.attach(capacity.load(model=name, device="cpu").model, 13)
    adapted.set_vector(adapted.vector() + 0.25)
    opened = capacity.load(capacity.save(adapted, tmp_path / "file", name), device="cpu")
    assert opened.adapted is not None
    assert opened.adapted.vector().tolist() == adapted.vector().tolist()
    with pytest.raises(capacity.errors.DataError, match="made on another base"):
        capacity.load(tmp_path / "file", model="abacus-0.2m", device="cpu")
