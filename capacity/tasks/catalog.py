"""The tasks by name, and the little grammar `NAME?option=value` that names one with its options."""

from capacity.config import TaskSpec
from capacity.errors import SpecError, unknown
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.task import Task

TASKS: dict[str, Task] = {"abacus": AbacusTask()}


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        SpecError: no such task; the nearest names are offered.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def parse_task(text: str) -> TaskSpec:
    """Reads `abacus` or `abacus?demonstrations=own`.

    Raises:
        SpecError: unknown task, option or demonstration style.
    """
    name, _, query = text.partition("?")
    task = get_task(name)
    style = task.default_demonstrations
    for option in filter(None, query.split("&")):
        key, equals, value = option.partition("=")
        if key != "demonstrations" or not equals:
            raise SpecError(f"task {text!r}: unknown option {option!r}: the only one is demonstrations=STYLE")
        if value not in task.demonstration_styles:
            raise unknown("demonstration style", value, task.demonstration_styles)
        style = value
    return TaskSpec(name=name, demonstrations=style)
