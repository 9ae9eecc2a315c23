"""The fingerprint of the sources: what runs depend on moves it, prose does not."""

import ast
import subprocess
import sys

import pytest

from capacity.runs.fingerprint import _ENTRIES, _PACKAGE, reached, source_digest, syntax

CODE = """
class Adam:
    def step(self, rate: float) -> float:
        if rate > 0.5:
            rate = 0.5
        return rate * 2
"""


def text(source: str) -> str:
    return syntax(ast.parse(source))


@pytest.mark.parametrize(
    "prose",
    [
        f'"""A module."""\n{CODE}',
        CODE.replace("class Adam:\n", 'class Adam:\n    """A class."""\n\n'),
        CODE.replace("        if", '        """A function, over\n        two lines.\n        """\n        if'),
        CODE.replace("rate = 0.5", "rate = 0.5  # no more than that"),
        CODE.replace("\n    def", "\n\n    # why\n    def").replace(
            "rate * 2", "(\n            rate\n            * 2\n        )"
        ),
    ],
)
def test_docstrings_comments_and_layout_do_not_count(prose: str) -> None:
    assert prose != CODE
    assert text(prose) == text(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5", "0.6"), ("rate > ", "rate >= "), ("* 2", "* 2.0"), ("rate", "r"), ("step", "move"), ("float:", "int:")],
)
def test_every_change_of_the_code_counts(old: str, new: str) -> None:
    assert text(CODE.replace(old, new)) != text(CODE)


def test_a_text_that_is_not_a_docstring_counts() -> None:
    assert text('def f():\n    x = 1\n    "a"\n') != text('def f():\n    x = 1\n    "b"\n')


def test_fields_that_are_empty_do_not_count() -> None:
    """Newer versions of Python add fields to nodes, such as `type_params`, that are empty for older code."""
    tree = ast.parse("def f(): pass").body[0]
    before = syntax(tree)
    tree._fields = (*tree._fields, "added")
    tree.added = []  # type: ignore[attr-defined]
    assert syntax(tree) == before


def test_what_a_run_reaches() -> None:
    names = set(reached(_ENTRIES))
    assert {
        "capacity.spec.run",
        "capacity.training.losses",
        "capacity.training.grpo",
        "capacity.sampling.evaluate",
        "capacity.adapters.projection",
        "capacity.plan.sharing",
        "capacity.tasks.abacus",
        "capacity.tasks.grading.verifier_worker",
    } <= names
    # What chooses rates, plans studies, pre-trained the models or works on several runs makes none of them another.
    assert not {"capacity.plan.rates", "capacity.plan.study_file", "capacity.models.pretrain"} & names
    assert not [name for name in names if name.startswith("capacity.studies")]


def test_every_module_that_a_run_really_loads_is_reached() -> None:
    code = "import capacity.training.run, sys; print(*(m for m in sys.modules if m.startswith('capacity.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {path.parent.relative_to(_PACKAGE.parent).as_posix() for path in _PACKAGE.rglob("__init__.py")}
    loaded = {name for name in done.stdout.split() if name.replace(".", "/") not in packages}
    loaded -= {"capacity.version"}  # of the library's front, which runs do not use
    assert loaded
    assert loaded <= set(reached(_ENTRIES))


def test_the_digest_is_one_of_this_installation() -> None:
    assert len(source_digest()) == 64
