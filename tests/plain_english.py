"""Measures the project's English: `python tests/plain_english.py` prints words and the longest sentence of every text.

The texts are the Markdown pages, the help of every command and the docstrings of public names. Code, tables, the
targets of links, and citations are not counted.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.main import get_command

from capacity_cli.app import app

ROOT = Path(__file__).parent.parent
LONGEST = 25
PACKAGES = ("capacity", "analysis/capacity_analysis", "reports/capacity_reports", "cli/capacity_cli")

# A reader who is new to the project, or to English, cannot follow these.
BANNED = (
    "as it were",
    "at hand",
    "in a nutshell",
    "in another hand",
    "it goes without saying",
    "of everything random here",
    "on the fly",
    "out of the box",
    "read it so",
    "right answer",
    "right sample",
    "so to speak",
    "under the hood",
    "with a pinch of salt",
)
_BANNED = re.compile(rf"\b(?:{'|'.join(BANNED)})s?\b", re.IGNORECASE)

# Blocks that are not sentences: code, comments, formulas, tables, MyST's fences and the definitions of targets.
_BLOCKS = (
    re.compile(r"^[ \t]*(```+|~~~+).*?^[ \t]*\1", re.MULTILINE | re.DOTALL),
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"^\$\$.*?\$\$", re.MULTILINE | re.DOTALL),
    re.compile(r"^[ \t]*\|.*$|^.*\S {3,}\S.*$", re.MULTILINE),
    re.compile(r"^:::+.*$|^\(\w[\w-]*\)=$|^\[[^\]]+\]:.*$", re.MULTILINE),
)
# What is not counted inside a sentence: code, citations, pictures, the targets of links and tags.
_INLINE = (
    re.compile(r"(`+).+?\1", re.DOTALL),
    re.compile(r"\([^()]*(?:arXiv|et al\.)[^()]*\)"),
    re.compile(r"!\[[^\]]*\]\([^)]*\)"),
    re.compile(r"(?<=\])\([^)]*\)|https?://\S+|</?\w[^>]*>"),
)
_ITEM = re.compile(r"\s*(?:[-*+] |\d+\. |> )|#+ |\s+\w+: |(?:Args|Attributes|Raises|Returns|Yields|Example):$")
_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!et al\.)(?<=[.!?])[\"')\]*_”]*\s+")


@dataclass(frozen=True)
class Text:
    """One text of the project: a page, the help of a command, or the docstrings of a module."""

    name: str
    sentences: tuple[str, ...]

    @property
    def words(self) -> int:
        """The number of words."""
        return sum(map(words, self.sentences))

    @property
    def longest(self) -> str:
        """The sentence of most words."""
        return max(self.sentences, key=words, default="")

    def faults(self) -> list[str]:
        """One line for each sentence that is too long or holds a banned phrase."""
        long = [f"{self.name}: {words(s)} words: {s}" for s in self.sentences if words(s) > LONGEST]
        return long + [f"{self.name}: {found[0]!r}: {s}" for s in self.sentences if (found := _BANNED.search(s))]


def words(sentence: str) -> int:
    """Counts the words of a sentence. A word has a letter or a digit."""
    return sum(any(map(str.isalnum, token)) for token in sentence.split())


def sentences(text: str) -> tuple[str, ...]:
    """Returns the sentences of Markdown or of a docstring. Paragraphs, headings and list items end a sentence."""
    for pattern in _BLOCKS:
        text = pattern.sub("\n", text)
    for pattern in _INLINE:
        text = pattern.sub("…", text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.strip() or _ITEM.match(line):
            blocks.append([])
        blocks[-1].append(line.strip())
        if line.startswith("#"):
            blocks.append([])
    found = [sentence.strip() for block in blocks for sentence in _END.split(" ".join(block))]
    return tuple(sentence for sentence in found if words(sentence))


def pages() -> Iterator[Text]:
    """The Markdown pages. Of the changelog only the section on top: the others are history."""
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted(ROOT.glob("docs/**/*.md")),
    ):
        text = path.read_text()
        if path.name == "CHANGELOG.md":
            text = "\n## ".join(text.split("\n## ")[:2])
        yield Text(str(path.relative_to(ROOT)), sentences(text))


def help_lines() -> Iterator[Text]:
    """The help of every command with that of its options."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        lines = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        yield Text(f"capacity {name} --help", tuple(s for line in lines if line for s in sentences(line)))


def docstrings() -> Iterator[Text]:
    """The docstrings of each module and of its public classes and functions."""
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        nodes: list[ast.AST] = [ast.parse(path.read_text())]
        texts = []
        for node in nodes:
            texts.append(ast.get_docstring(node) or "")  # type: ignore[arg-type]
            inner = [n for n in getattr(node, "body", []) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
            nodes += [n for n in inner if not n.name.startswith("_") and not isinstance(node, ast.FunctionDef)]
        yield Text(str(path.relative_to(ROOT)), tuple(s for text in texts for s in sentences(text)))


def all_texts() -> list[Text]:
    """Every text of the project."""
    return [*pages(), *help_lines(), *docstrings()]


if __name__ == "__main__":
    print("words  longest  too long  text")
    for text in all_texts():
        over = sum(words(s) > LONGEST for s in text.sentences)
        print(f"{text.words:>5,}  {words(text.longest):>7}  {over:>8}  {text.name}")
