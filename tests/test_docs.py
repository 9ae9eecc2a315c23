"""What the documents promise exists, and what exists is documented."""

import json
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from click import Context
from in_process import capacity as command
from typer.main import get_command

import capacity
from capacity.plan.models import ALIASES
from capacity.plan.study_file import read_study_file
from capacity.runs.points import COLUMNS
from capacity_cli.app import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    start = text.index(f"## `capacity {name}")
    section = text[start : text.find("\n## ", start + 1)]
    options = [o for p in COMMANDS[name].params for o in p.opts if o.startswith("--") and o != "--help"]
    assert [o for o in options if f"`{o}" not in section] == []


def test_every_name_of_the_library_is_on_the_page_of_the_api() -> None:
    named = re.findall(
        r"^\.\. auto(?:function|class):: capacity\.(\w+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(capacity.__all__)


def test_every_alias_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert [a for a in ALIASES if f"`{a}`" not in text] == []


def test_every_column_of_the_points_table_is_documented() -> None:
    text = (ROOT / "docs" / "runs.md").read_text()
    assert [c for c in COLUMNS if c not in text] == []


def test_readme_has_the_two_commands_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"^# capacity$", readme.splitlines()[0])
    (block,) = [b for b in re.findall(r"```\w*\n(.*?)```", readme, re.DOTALL) if b.startswith("make compare")]
    assert [line.split("#")[0].strip() for line in block.strip().splitlines()] == ["make compare", "make test"]


def test_every_named_target_of_make_exists_and_make_alone_lists_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    for document in DOCUMENTS:
        for name in re.findall(r"`(?:TORCH=\w+ )?make ([a-z-]+)", document.read_text()):
            assert name in targets, (document.name, name)
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed == subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert max(map(len, listed.splitlines())) <= 80
    said = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", listed, re.MULTILINE))
    assert sorted(said) == sorted(set(targets))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_have_options_that_exist(document: Path) -> None:
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if line.startswith("capacity "):
            _, name, *words = shlex.split(line, comments=True)
            assert name in COMMANDS, line
            command = COMMANDS[name]
            command.make_parser(Context(command)).parse_args([word for word in words if word != ">"])


@pytest.mark.parametrize("name", ["tutorial.md", "researcher.md"])
def test_study_files_in_the_guides_can_be_planned(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"What is {n} + 5?", "answer": f"{n + 5}", "solution": f"It is {n + 5}."} for n in range(100)]
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    blocks = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "study.toml").write_text(block)
        assert read_study_file(tmp_path / "study.toml").grids


def test_comparisons_of_the_guides_can_be_planned(tmp_path: Path) -> None:
    """Those on embedded models: each has a rate for every method."""
    planned = []
    for document in DOCUMENTS:
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.startswith("capacity compare") else []
            model = words[words.index("--model") + 1] if "--model" in words else "abacus"
            if words and model.startswith("abacus"):
                done = command(tmp_path, *words[1:], "--dry-run")
                assert done.code == 0, (line, done.err)
                planned.append(line)
    assert len(planned) >= 4, planned


def test_what_the_documents_import_exists() -> None:
    found = 0
    for document in DOCUMENTS:
        for line in re.findall(r"^from (capacity\w*(?:\.\w+)*) import ([\w, ]+)", document.read_text(), re.MULTILINE):
            module = import_module(line[0])
            found += 1
            assert [name for name in line[1].strip().split(", ") if not hasattr(module, name)] == [], document.name
    assert found


def anchors(page: str) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MyST name them."""
    plain = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", document.read_text()):
        page = document.parent / target if target else document
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text()), (target, anchor)


def test_every_page_is_in_the_table_of_contents_of_the_site() -> None:
    listed = re.findall(r"^([a-z-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(p.stem for p in (ROOT / "docs").glob("*.md") if p.stem != "index")
