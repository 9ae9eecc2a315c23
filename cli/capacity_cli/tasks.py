"""`capacity tasks`: the tasks by name, and one of them looked into: its splits, a prompt, its references graded."""

from typing import Annotated

import typer

from capacity_cli.options import Json


def tasks(
    name: Annotated[str | None, typer.Argument(help="Task with options.")] = None,
    grade: Annotated[bool, typer.Option("--grade", help="Grade all references.")] = False,
    json: Json = False,
) -> None:
    """The tasks, or one of them: splits, a prompt, its references graded."""
    from capacity.library.tasks import task_facts
    from capacity_cli.output import print_json

    if name is None:
        _list(as_json=json)
        return
    facts = task_facts(name, grade=grade)
    found = facts.to_json()
    if json:
        print_json(found)
    else:
        for key, value in found.items():
            if value is not None and value != {}:
                print(f"{key.replace('_', ' ')}: {value}")
    if grade:
        facts.check()


def _list(*, as_json: bool) -> None:
    from capacity.library.tasks import ABOUT
    from capacity.tasks.templates import TEMPLATES
    from capacity_cli.output import print_json, print_rows

    if as_json:
        templates = {name: {"user": t.user, "system": t.system, "form": t.form} for name, t in TEMPLATES.items()}
        print_json({"tasks": ABOUT, "templates": templates})
        return
    print_rows(("task", "what"), ABOUT.items())
    print(f"Templates: {', '.join(TEMPLATES)}. Options: docs/tasks.md.")
