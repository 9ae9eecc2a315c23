"""What the documents promise exists, and what exists is documented."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from capacity.plan.models import ALIASES
from capacity.runs.points import COLUMNS
from capacity_cli.app import app

ROOT = Path(__file__).parent.parent
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    start = text.index(f"## `capacity {name}")
    section = text[start : text.find("\n## ", start + 1)]
    options = [o for p in COMMANDS[name].params for o in p.opts if o.startswith("--") and o != "--help"]
    assert [o for o in options if f"`{o}" not in section] == []


def test_every_alias_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert [a for a in ALIASES if f"`{a}`" not in text] == []


def test_every_column_of_the_points_table_is_documented() -> None:
    text = (ROOT / "docs" / "runs.md").read_text()
    assert [c for c in COLUMNS if c not in text] == []


def test_readme_opens_with_the_two_commands_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```\w*\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].strip() for line in block[1].strip().splitlines()]
    assert commands == ["make compare", "make test"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"`make ([a-z-]+)`", readme + (ROOT / "CONTRIBUTING.md").read_text()):
        assert name in targets


def test_what_the_documents_import_exists() -> None:
    found = 0
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in re.findall(r"^from (capacity\w*(?:\.\w+)*) import ([\w, ]+)", document.read_text(), re.MULTILINE):
            module = import_module(line[0])
            found += 1
            assert [name for name in line[1].strip().split(", ") if not hasattr(module, name)] == [], document.name
    assert found


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
