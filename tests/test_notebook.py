"""The example notebook, executed again: it still shows what these sources give."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook" / "report.ipynb"


def executed(source: str, scope: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), scope)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), scope)


def shown_field(shown: dict[str, str], name: str) -> str:
    """A text of the figure, from its representation."""
    found = re.search(rf"{name}='([^']*)'", shown["text/plain"])
    assert found is not None
    return found.group(1)


def test_the_notebook_shows_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    scope: dict[str, Any] = {}
    kinds = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        value = executed("".join(cell["source"]), scope)
        for output in cell["outputs"]:
            shown = {kind: "".join(text) for kind, text in output["data"].items()}
            kind = next(k for k in ("text/html", "image/svg+xml", "text/plain") if k in shown)
            kinds.append(kind)
            if kind == "text/html":
                assert value._repr_html_() == shown[kind]
            elif kind == "image/svg+xml":  # its strokes are those of one version of matplotlib
                assert "<svg" in value._repr_svg_()
                assert (value.title, value.caption) == (shown_field(shown, "title"), shown_field(shown, "caption"))
            else:
                assert value == ast.literal_eval(shown[kind])
    assert set(kinds) == {"text/html", "image/svg+xml", "text/plain"}
